"""THE generation procedure: chunk after chunk, each denoised in the context of the finished ones.

Self forcing trains on it and evaluation samples with it, so that what is trained is what is run.
Self-Forcing, arXiv:2506.08009, algorithms 1 and 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.diffusion.trajectory import STEPS, step_levels
from pipeline.interfaces import NoiseLevel, Video
from pipeline.rules import at_least, one_of, within
from pipeline.streams import noise_like

Cache = Any  # what a denoiser keeps of the finished frames; opaque here, never modified in place


@runtime_checkable
class CachedDenoiser(Protocol):
    """A denoiser that sees one chunk in the context of finished frames."""

    def denoise_chunk(self, x_t: Video, t: NoiseLevel, cache: Cache) -> Video: ...

    def extend(self, cache: Cache, x: Video, t: NoiseLevel, *, window: int) -> Cache:
        """The cache with a finished chunk added, cut to the last `window` frames; carries no gradient."""
        ...


@dataclass(frozen=True)
class Sampler:
    """How a student turns noise into frames."""

    num_steps: int = 4  # denoiser calls a chunk, before the one that writes the cache
    step: str = "renoise"  # a name of trajectory.STEPS
    shift: float = 1.0  # of the levels, times that of the schedule
    chunk_len: int = 1  # frames made together
    first_chunk_len: int | None = None  # of the first chunk, where there is no context yet; None: chunk_len
    window: int = 7  # finished frames that stay in the context
    context_noise: float = 0.0  # level at which finished frames enter the cache, in training and in sampling alike

    def __post_init__(self) -> None:
        step_levels(self.num_steps, self.shift)
        one_of(STEPS, step=self.step)
        at_least(1, chunk_len=self.chunk_len, window=self.window)
        if self.first_chunk_len is not None:
            at_least(1, first_chunk_len=self.first_chunk_len)
        within(0, 1, open_high=True, context_noise=self.context_noise)

    @property
    def levels(self) -> tuple[float, ...]:
        """At which the denoiser is called, from noise down."""
        return step_levels(self.num_steps, self.shift)

    def chunks(self, num_frames: int) -> list[slice]:
        """The frames of every chunk. Raises ValueError when they do not fill the clip."""
        first = self.chunk_len if self.first_chunk_len is None else self.first_chunk_len
        if num_frames < first or (num_frames - first) % self.chunk_len:
            raise ValueError(
                f"clip length must be a multiple of chunk_len after the first chunk: T={num_frames}, "
                f"chunk_len={self.chunk_len}, first_chunk_len={first}"
            )
        return [slice(0, first)] + [slice(s, s + self.chunk_len) for s in range(first, num_frames, self.chunk_len)]


@dataclass(frozen=True)
class Generated:
    """What came out, and what it was predicted from: one denoiser call a frame carries the gradient."""

    x0_hat: Video
    x_t: Video
    t: NoiseLevel
    caches: Sequence[Cache]  # the context of every chunk


def generate(
    student: CachedDenoiser,
    noise: Video,
    *,
    schedule: Schedule,
    sampler: Sampler,
    rng: Generator,
    exit_steps: Int[Tensor, "B K"] | None = None,
) -> Generated:
    """Denoise `noise` chunk by chunk; chunk k of clip b leaves its path at step exit_steps[b, k] (None: the last).

    Every clip takes its path without gradient; then one call, at the level where it leaves, makes its frames with
    whatever gradient is enabled outside. Those frames, detached, are the context of the chunks that follow.

    Raises:
        ValueError: the chunks do not fill the clip, or an exit step is not a step of the sampler.
    """
    chunks = sampler.chunks(noise.shape[1])
    levels = torch.tensor(sampler.levels, device=noise.device)
    if exit_steps is None:
        exit_steps = torch.full((noise.shape[0], len(chunks)), sampler.num_steps - 1, device=noise.device)
    check_exit_steps(exit_steps, sampler)
    caches: list[Cache] = [None]
    x0s, x_ts, ts = [], [], []
    for k, chunk in enumerate(chunks):
        x_t, t = _walk(student, noise[:, chunk], levels, exit_steps[:, k], caches[-1], schedule, sampler, rng)
        x0_hat = student.denoise_chunk(x_t, t, caches[-1])
        x0s.append(x0_hat)
        x_ts.append(x_t)
        ts.append(t)
        if k + 1 < len(chunks):
            caches.append(_remember(student, x0_hat.detach(), caches[-1], schedule, sampler, rng))
    return Generated(torch.cat(x0s, 1), torch.cat(x_ts, 1), torch.cat(ts, 1), caches)


@torch.no_grad()
def _walk(
    student: CachedDenoiser,
    x: Video,
    levels: Tensor,
    exits: Int[Tensor, " B"],
    cache: Cache,
    schedule: Schedule,
    sampler: Sampler,
    rng: Generator,
) -> tuple[Video, NoiseLevel]:
    """Each clip's noisy chunk at its exit step, and its level."""
    x_exit = x
    for k in range(int(exits.max())):
        t, t_next = (level.expand(x.shape[:2]) for level in (levels[k], levels[k + 1]))
        x = STEPS[sampler.step](schedule, x, student.denoise_chunk(x, t, cache), t, t_next, rng)
        x_exit = torch.where((exits > k)[:, None, None, None, None], x, x_exit)
    return x_exit, levels[exits][:, None].expand(x.shape[:2]).contiguous()


@torch.no_grad()
def _remember(
    student: CachedDenoiser, x0: Video, cache: Cache, schedule: Schedule, sampler: Sampler, rng: Generator
) -> Cache:
    """Write a finished chunk to the cache, noised to context_noise; 0 is exactly 0."""
    t = torch.full(x0.shape[:2], sampler.context_noise, device=x0.device)
    if sampler.context_noise > 0:
        x0 = add_noise(schedule, x0, noise_like(x0, rng), t)
    return student.extend(cache, x0, t, window=sampler.window)


def check_exit_steps(exit_steps: Tensor, sampler: Sampler) -> None:
    """Raises ValueError unless every exit step is one of the sampler's steps."""
    if exit_steps.min() < 0 or exit_steps.max() >= sampler.num_steps:
        raise ValueError(
            f"an exit step must be below num_steps: exit_steps up to {int(exit_steps.max())}, "
            f"num_steps={sampler.num_steps}"
        )
