"""Clips of a checkpoint, sampled by the very procedure that self forcing trains on, and what they cost."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.diffusion.autoregress import Cache, Sampler, generate
from pipeline.interfaces import NoiseLevel, Video
from pipeline.models.denoiser import Denoiser, load_denoiser
from pipeline.streams import stream


class CountedDenoiser:
    """A denoiser that counts how many frames pass through its backbone, and when the first chunk is done."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.frame_calls = 0  # frames a clip, summed over calls
        self.first_chunk_s: float | None = None

    def denoise_chunk(self, x_t: Video, t: NoiseLevel, cache: Cache) -> Video:
        """Counted."""
        self.frame_calls += x_t.shape[1]
        if cache is not None and cache.frames is not None:  # full attention denoises its context again
            self.frame_calls += cache.frames.shape[1]
        return self.denoiser.denoise_chunk(x_t, t, cache)

    def extend(self, cache: Cache, x: Video, t: NoiseLevel, *, window: int) -> Cache:
        """Counted where it costs a call: under full attention the cache is only the frames."""
        if self.first_chunk_s is None:
            self.first_chunk_s = time.perf_counter()
        if self.denoiser.spec.backbone.attention == "causal":
            self.frame_calls += x.shape[1]
        return self.denoiser.extend(cache, x, t, window=window)


@dataclass(frozen=True)
class SamplingCost:
    """Of one batch. latency_s: from the start to the first chunk; calls_per_frame: passes of a frame, cache writes
    included."""

    seconds: float
    latency_s: float
    calls_per_frame: float


@torch.no_grad()
def sample(
    student: Denoiser,
    num_clips: int,
    num_frames: int,
    *,
    sampler: Sampler,
    rng: torch.Generator,
) -> tuple[Video, SamplingCost]:
    """Latents (num_clips, num_frames, c, h, w) from noise, of classes drawn alike if it knows any; their cost."""
    spec = student.spec.backbone
    if spec.num_classes:
        student = student.given(torch.randint(spec.num_classes, (num_clips,), generator=rng))
    counted = CountedDenoiser(student)
    start = time.perf_counter()
    noise = torch.randn(num_clips, num_frames, spec.channels, spec.frame_size, spec.frame_size, generator=rng)
    made = generate(counted, noise, schedule=student.spec.schedule, sampler=sampler, rng=rng)
    end = time.perf_counter()
    first = counted.first_chunk_s or end
    return made.x0_hat, SamplingCost(end - start, first - start, counted.frame_calls / num_frames)


def generate_latents(
    student: Denoiser, num_clips: int, num_frames: int, *, sampler: Sampler, batch_size: int, seed: int
) -> Iterator[Video]:
    """Batches of latents, num_clips in all; the same clips whatever was sampled before."""
    for index, first in enumerate(range(0, num_clips, batch_size)):
        size = min(batch_size, num_clips - first)
        rng = stream(seed, f"sample/{num_frames}", index)
        yield sample(student, size, num_frames, sampler=sampler, rng=rng)[0]


def load_student(directory: Path, *, latents: str) -> Denoiser:
    """A checkpoint, ready to sample. Raises ValueError when it speaks other latents."""
    return load_denoiser(directory, latents=latents).eval().requires_grad_(False)
