"""THE generation procedure: a clip from noise, chunk after chunk, all together, or in a cascade.

One procedure walks every scheduling matrix: how many steps each chunk has taken, row by row. Finished chunks are
the context, kept in a cache. Self forcing trains on it and evaluation samples with it, so that what is trained is
what is run. Self-Forcing, arXiv:2506.08009, algorithms 1 and 2; matrices: arXiv:2407.01392, algorithm 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from pipeline.diffusion.schedule import FlowMatching, Schedule, add_noise
from pipeline.diffusion.trajectory import Renoise, Step
from pipeline.interfaces import NoiseLevel, Video
from pipeline.rules import at_least, within
from pipeline.streams import noise_like

Cache = Any  # what a denoiser keeps of the finished frames; opaque here, never modified in place


@runtime_checkable
class CachedDenoiser(Protocol):
    """A denoiser that sees one chunk, or several in a row, in the context of finished frames."""

    def denoise_chunk(self, x_t: Video, t: NoiseLevel, cache: Cache) -> Video: ...

    def extend(self, cache: Cache, x: Video, t: NoiseLevel, *, window: int) -> Cache:
        """The cache with a finished chunk added, cut to the last `window` frames."""
        ...


@dataclass(frozen=True)
class Sampler:
    """How a student turns noise into frames.

    A chunk costs step.num_calls (num_steps - 1) + 1 calls of the denoiser, and one that writes the cache.
    """

    num_steps: int = 4  # of every chunk; the last is the denoiser's answer
    step: Step = field(default_factory=Renoise)
    schedule: Schedule = field(
        default_factory=FlowMatching
    )  # its log-SNRs at u = 1, (n-1)/n, ..., 1/n are the levels
    chunk_len: int = 1  # frames made together
    first_chunk_len: int | None = None  # of the first chunk, where there is no context yet; None: chunk_len
    lag: int | None = None  # steps by which a chunk follows the one before; None: num_steps, one after the other
    window: int = 7  # finished frames that stay in the context
    context_noise: float = 0.0  # level at which finished frames enter the cache, in training and in sampling alike

    def __post_init__(self) -> None:
        at_least(1, num_steps=self.num_steps, chunk_len=self.chunk_len, window=self.window)
        if self.first_chunk_len is not None:
            at_least(1, first_chunk_len=self.first_chunk_len)
        _check_lag(self.num_steps, self.lag)
        within(0, 1, open_high=True, context_noise=self.context_noise)

    def levels(self, schedule: Schedule) -> tuple[float, ...]:
        """At which a network trained on `schedule` is asked, from noise down: where it has the sampler's log-SNRs.

        A log-SNR beyond the range of `schedule` becomes its end: the first step starts at the noisiest level there
        is. With FlowMatching(shift=5) on FlowMatching(), four steps are 1, .9375, .8333 and .625 of Self-Forcing.

        Raises:
            ValueError: two steps at one level, as float32 tells levels apart, or a step at 0.
        """
        u = torch.arange(self.num_steps, 0, -1, dtype=torch.float64) / self.num_steps
        low, high = schedule.native.range  # also when training draws from less of it
        log_snr = self.schedule.log_snr(u)
        t = schedule.level(log_snr.clamp(low, high))
        levels = (*t.masked_fill(log_snr <= low, 1.0).masked_fill(log_snr >= high, 0.0).tolist(), 0.0)
        for before, after in pairwise(torch.tensor(levels, dtype=torch.float32).tolist()):
            if after >= before:
                raise ValueError(
                    f"the levels of a sampler must go down to above 0, got {after:.6g} after {before:.6g}: "
                    f"num_steps={self.num_steps} of {self.schedule} on {schedule}"
                )
        return levels[:-1]

    def chunks(self, num_frames: int) -> list[slice]:
        """The frames of every chunk. Raises ValueError when they do not fill the clip."""
        first = self.chunk_len if self.first_chunk_len is None else self.first_chunk_len
        if num_frames < first or (num_frames - first) % self.chunk_len:
            raise ValueError(
                f"clip length must be a multiple of chunk_len after the first chunk: T={num_frames}, "
                f"chunk_len={self.chunk_len}, first_chunk_len={first}"
            )
        return [slice(0, first)] + [slice(s, s + self.chunk_len) for s in range(first, num_frames, self.chunk_len)]


def scheduling_matrix(num_chunks: int, num_steps: int, lag: int | None) -> Int[Tensor, "rows K"]:
    """Steps that every chunk has taken: row m of chunk k is clip(m - k lag, 0, num_steps), from none to all.

    lag None or num_steps: autoregressive, each chunk after the one before. lag 0: full sequence, all together. In
    between: the pyramid, or cascade. Diffusion Forcing, arXiv:2407.01392, algorithm 2; its entries are the levels,
    num_steps - steps.
    """
    at_least(1, num_chunks=num_chunks, num_steps=num_steps)
    _check_lag(num_steps, lag)
    lag = num_steps if lag is None else lag
    rows = torch.arange((num_chunks - 1) * lag + num_steps + 1)
    return (rows[:, None] - lag * torch.arange(num_chunks)).clamp(0, num_steps)


@dataclass(frozen=True)
class Generated:
    """What came out, and what it was predicted from: one denoiser call a frame carries the gradient."""

    x0_hat: Video
    x_t: Video
    t: NoiseLevel
    caches: Sequence[Cache]  # the context of every chunk when its frames came out


def generate(
    student: CachedDenoiser,
    noise: Video,
    *,
    schedule: Schedule,
    sampler: Sampler,
    rng: Generator,
    exit_steps: Int[Tensor, "B K"] | None = None,
    detach_context: bool = True,
) -> Generated:
    """Denoise `noise` row by row of the sampler's matrix, the chunks between their first and last step in one call.

    Chunks that have not started are left out: they are noise without a frame in it, which under causal attention no
    other chunk sees. The start is sigma(first level) noise: pure noise where alpha is 0 there, else nearly.

    Every chunk takes its path without gradient; the last step is one call, which makes its frames with whatever
    gradient is enabled outside. Those frames are the context of the chunks that follow: detached and written to the
    cache without gradient, unless detach_context is off.

    exit_steps: chunk k of clip b waits at the level of step exit_steps[b, k], and takes the last step from there.

    Raises:
        ValueError: the chunks do not fill the clip, the levels do not go down, or an exit step is not one of the
            sampler's steps or the chunks do not follow one after the other.
    """
    chunks, num_steps = sampler.chunks(noise.shape[1]), sampler.num_steps
    levels = torch.tensor((*sampler.levels(schedule), 0.0), dtype=noise.dtype, device=noise.device)
    chunk_lens = torch.tensor([chunk.stop - chunk.start for chunk in chunks])
    matrix = scheduling_matrix(len(chunks), num_steps, sampler.lag).repeat_interleave(chunk_lens, dim=1)
    exits = _exits(exit_steps, (noise.shape[0], len(chunks)), sampler).repeat_interleave(chunk_lens, dim=1)
    x = schedule.at(levels[:1].expand(noise.shape[:2])).sigma * noise
    cache, caches, made = None, [], []
    for before, after in pairwise(matrix):
        active = torch.nonzero(after > before).flatten()
        span = slice(int(active[0]), int(active[-1]) + 1)
        t = levels[torch.minimum(before, exits)[:, span]]
        t_next = levels[torch.where(after == num_steps, num_steps, torch.minimum(after, exits))[:, span]]
        if torch.equal(t, t_next):  # every clip waits at its exit step
            continue
        done = span.start + int((after[span] == num_steps).sum())  # the first of the active chunks finish first
        with torch.set_grad_enabled(torch.is_grad_enabled() and done > span.start):
            denoise = partial(student.denoise_chunk, cache=cache)
            x_next = sampler.step(schedule, x[:, span], t, t_next, denoise, rng)
        if done > span.start:
            finished = slice(0, done - span.start)
            made.append((x_next[:, finished], x[:, span][:, finished], t[:, finished]))
            caches += [cache for chunk in chunks if span.start <= chunk.start < done]
        x = torch.cat([x[:, : span.start], x_next.detach(), x[:, span.stop :]], 1)
        if span.start < done < x.shape[1]:
            context = x_next[:, : done - span.start]
            with torch.set_grad_enabled(torch.is_grad_enabled() and not detach_context):
                context = context.detach() if detach_context else context
                cache = _remember(student, context, cache, schedule, sampler, rng)
    x0_hat, x_t, t = (torch.cat(parts, 1) for parts in zip(*made, strict=True))
    return Generated(x0_hat, x_t, t, caches)


def _remember(
    student: CachedDenoiser, x0: Video, cache: Cache, schedule: Schedule, sampler: Sampler, rng: Generator
) -> Cache:
    """Write a finished chunk to the cache, noised to context_noise; 0 is exactly 0."""
    t = torch.full(x0.shape[:2], sampler.context_noise, dtype=x0.dtype, device=x0.device)
    if sampler.context_noise > 0:
        x0 = add_noise(schedule, x0, noise_like(x0, rng), t)
    return student.extend(cache, x0, t, window=sampler.window)


def _exits(exit_steps: Tensor | None, shape: tuple[int, int], sampler: Sampler) -> Int[Tensor, "B K"]:
    """The step from which every chunk of every clip takes the last one. Raises ValueError."""
    if exit_steps is None:
        return torch.full(shape, sampler.num_steps - 1)
    if sampler.lag is not None:
        raise ValueError(f"lag must be None with exit_steps, where chunks follow one another: lag={sampler.lag}")
    if exit_steps.min() < 0 or exit_steps.max() >= sampler.num_steps:
        raise ValueError(
            f"an exit step must be below num_steps: exit_steps up to {int(exit_steps.max())}, "
            f"num_steps={sampler.num_steps}"
        )
    return exit_steps.cpu()


def _check_lag(num_steps: int, lag: int | None) -> None:
    if lag is not None and not 0 <= lag <= num_steps:
        raise ValueError(f"lag must be in [0, num_steps]: lag={lag}, num_steps={num_steps}")
