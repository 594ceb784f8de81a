"""Diffusion forcing: frames of data at noise levels of a law's drawing, one denoiser call. arXiv:2407.01392."""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Generator

from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.noise_levels import Independent, Levels, NoiseLevels
from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.interfaces import Rollout, Video
from pipeline.models.denoiser import Denoiser
from pipeline.rules import at_least
from pipeline.streams import noise_like


@dataclass(frozen=True)
class DiffusionForcing:
    """Real frames, noised chunk by chunk; the context of a frame is as noisy as its own level.

    The law of the levels makes it one of its relatives: independent ones are diffusion forcing, a shared one is
    bidirectional diffusion, all before clean and all after noise is teacher forcing. With a sampler, a student sees
    only the levels at which it will be asked: CausVid, arXiv:2412.07772.
    """

    provides_target: ClassVar[bool] = True
    attention: ClassVar[str] = "causal"
    teacher: ClassVar[str] = "bidirectional"
    denoised: ClassVar[str] = "each frame given the noised ones before it"
    judged: ClassVar[str] = (
        "clips restored from data noised chunk by chunk (a push-forward of data, not what the student samples)"
    )
    chunk_len: int = 1  # frames that share a noise level
    noise_levels: NoiseLevels = field(default_factory=Independent)
    sampler: Sampler | None = None  # None: levels of the law; else those at which this one asks a student

    def __post_init__(self) -> None:
        at_least(1, chunk_len=self.chunk_len)
        law = self.noise_levels
        if self.sampler is not None and not (isinstance(law, Independent) and law.num_levels is None):
            raise ValueError(
                f"noise_levels must be independent, without num_levels, where a sampler lists the levels, got {law}"
            )

    def rollout(self, student: Denoiser, clips: Video, *, schedule: Schedule, rng: Generator) -> Rollout:
        """Noise the clips and denoise all frames in parallel."""
        levels = self._draw(*clips.shape[:2], schedule=schedule, rng=rng)
        t, counts = levels.t.to(clips), levels.counts.to(clips)
        x_t = add_noise(schedule, clips, noise_like(clips, rng), t)
        return Rollout(student(x_t, t), x_t, t, counts=counts, target=clips, denoise=student)

    def _draw(self, batch: int, num_frames: int, *, schedule: Schedule, rng: Generator) -> Levels:
        """Levels where the schedule has them: of a continuum it may prefer some, those of a grid are given."""
        law = self.noise_levels
        if self.sampler is not None:
            assert isinstance(law, Independent)
            levels = self.sampler.levels(schedule)
            return law.draw_listed(batch, num_frames, levels, chunk_len=self.chunk_len, rng=rng)
        drawn = law.draw(batch, num_frames, chunk_len=self.chunk_len, rng=rng)
        return drawn if law.num_levels is not None else drawn._replace(t=schedule.draw(drawn.t))
