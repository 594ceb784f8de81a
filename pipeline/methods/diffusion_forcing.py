"""Diffusion forcing: every chunk of real frames at its own noise level, one denoiser call. arXiv:2407.01392."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator

from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.noise_levels import clean_at_random, independent_levels, listed_levels
from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.interfaces import Rollout, Video
from pipeline.models.denoiser import Denoiser
from pipeline.rules import at_least, within
from pipeline.streams import noise_like


@dataclass(frozen=True)
class DiffusionForcing:
    """Real frames, noised independently chunk by chunk; the context of a frame is as noisy as its own level.

    With a sampler, a student sees only the levels at which it will be asked: CausVid, arXiv:2412.07772.
    """

    provides_target: ClassVar[bool] = True
    chunk_len: int = 1  # frames that share a noise level
    clean_probability: float = 0.0  # of a chunk being clean context, without loss
    first_clean_probability: float | None = None  # of the first chunk, whose making has no context; None: the same
    sampler: Sampler | None = None  # None: levels uniform on [0, 1]; else those at which this one asks a student

    def __post_init__(self) -> None:
        at_least(1, chunk_len=self.chunk_len)
        within(0, 1, open_high=True, clean_probability=self.clean_probability)
        if self.first_clean_probability is not None:
            within(0, 1, open_high=True, first_clean_probability=self.first_clean_probability)

    def rollout(self, student: Denoiser, clips: Video, *, schedule: Schedule, rng: Generator) -> Rollout:
        """Noise the clips and denoise all frames in parallel."""
        batch, num_frames = clips.shape[:2]
        if self.sampler is None:
            t = independent_levels(batch, num_frames, chunk_len=self.chunk_len, rng=rng)
        else:
            t = listed_levels(batch, num_frames, self.sampler.levels, chunk_len=self.chunk_len, rng=rng)
        first = self.clean_probability if self.first_clean_probability is None else self.first_clean_probability
        t = clean_at_random(t, self.clean_probability, first=first, chunk_len=self.chunk_len, rng=rng).to(clips)
        x_t = add_noise(schedule, clips, noise_like(clips, rng), t)
        return Rollout(x0_hat=student(x_t, t), x_t=x_t, t=t, target=clips, denoise=student)
