"""Teacher forcing: noisy frames of data, each denoised after the clean frames of data before it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.noise_levels import count_chunks, independent_levels, listed_levels
from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.interfaces import NoiseLevel, Rollout, Video
from pipeline.models.denoiser import Denoiser
from pipeline.rules import at_least
from pipeline.streams import noise_like


@dataclass(frozen=True)
class TeacherForcing:
    """Clean context beside noisy frames in one forward. ACDiT, arXiv:2412.07720, section 3.2.

    What is judged is each frame beside its true context, never the frames in a row: made in parallel they do not
    know of each other, so that even exact conditionals would make a wrong clip. Hence the teacher is causal: one of
    full attention has no answer to a noisy frame after clean ones that does not see the frames that follow.
    """

    provides_target: ClassVar[bool] = True
    attention: ClassVar[str] = "causal"
    teacher: ClassVar[str] = "causal"
    denoised: ClassVar[str] = "each frame given the clean ones before it"
    judged: ClassVar[str] = "true contexts, each followed by what the student restores from noised data"
    chunk_len: int = 1  # frames that share a noise level
    sampler: Sampler | None = None  # None: levels of the continuum; else those at which this one asks a student

    def __post_init__(self) -> None:
        at_least(1, chunk_len=self.chunk_len)
        if self.sampler is not None and self.sampler.context_noise > 0:
            raise ValueError(
                f"sampler.context_noise must be 0 where the context is clean data, got {self.sampler.context_noise}"
            )

    def rollout(self, student: Denoiser, clips: Video, *, schedule: Schedule, rng: Generator) -> Rollout:
        """Noise every chunk to a level of its own and denoise all of them, each after its true context."""
        t = self._levels(*clips.shape[:2], schedule=schedule, rng=rng).to(clips)
        x_t = add_noise(schedule, clips, noise_like(clips, rng), t)

        def denoise(x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
            return student.beside(x_t, t, clips, end)

        def judge(network: Any, x_t: Video, t: NoiseLevel) -> Tensor:
            return network.beside(x_t, t, clips)

        x0_hat, every = denoise(x_t, t), torch.ones_like(t)
        return Rollout(x0_hat, x_t, t, counts=every, target=clips, denoise=denoise, judge=judge, in_context=judge)

    def _levels(self, batch: int, num_frames: int, *, schedule: Schedule, rng: Generator) -> NoiseLevel:
        num_chunks = count_chunks(num_frames, self.chunk_len)
        if self.sampler is not None:
            t = listed_levels(batch, num_chunks, self.sampler.levels(schedule), rng=rng)
            return t.repeat_interleave(self.chunk_len, 1)
        u = independent_levels(batch, num_chunks, rng=rng)
        return schedule.draw(u.repeat_interleave(self.chunk_len, 1))
