"""Frames of a clip in the order in which they become final, while `generate` is still making later ones."""

import dataclasses
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import ClassVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from pipeline.data.store import to_uint8
from pipeline.diffusion.autoregress import CachedDenoiser, Sampler, generate
from pipeline.diffusion.schedule import Schedule
from pipeline.diffusion.trajectory import Step
from pipeline.interfaces import Denoise, NoiseLevel, Video
from pipeline.models.codec import FrameCodec
from pipeline.models.denoiser import Denoiser
from pipeline.streams import stream

BytePart = UInt8[Tensor, "B t C H W"]


class StoppedError(Exception):
    """Nobody waits for further frames."""


def generate_stream(
    student: CachedDenoiser, noise: Video, *, schedule: Schedule, sampler: Sampler, rng: torch.Generator
) -> Generator[Video, None, None]:
    """`generate` as it goes: the parts of its x0_hat, bit for bit, each as soon as no later row changes it.

    Chunks that follow one another come one at a time, those of a cascade as the scheduling matrix lets them finish,
    those made all together at once. The frames are made in a thread of their own, without gradient, whether or not
    the caller has asked for them yet; when the caller closes the iterator, the thread ends at its next step.

    Raises:
        ValueError: see `generate`.
    """
    parts: SimpleQueue[Video | None] = SimpleQueue()
    stopped = Event()
    watched = dataclasses.replace(sampler, step=_announcing(sampler.step, parts, stopped))
    with ThreadPoolExecutor(1, "sampler") as pool:
        run = torch.no_grad()(generate)  # of this thread alone: gradient is enabled in a new one
        future = pool.submit(run, student, noise, schedule=schedule, sampler=watched, rng=rng)
        future.add_done_callback(lambda _: parts.put(None))
        try:
            while (part := parts.get()) is not None:
                yield part
        finally:
            stopped.set()
        future.result()  # raises what ended it early


def _announcing(step: Step, parts: SimpleQueue[Video | None], stopped: Event) -> Step:
    """The same step, which hands on the frames that it brings to level 0."""

    class Announcing:
        num_calls: ClassVar[int] = step.num_calls

        def __call__(
            self,
            schedule: Schedule,
            x_t: Video,
            t: NoiseLevel,
            t_next: NoiseLevel,
            denoise: Denoise,
            rng: torch.Generator,
        ) -> Video:
            if stopped.is_set():
                raise StoppedError
            x_next = step(schedule, x_t, t, t_next, denoise, rng)
            is_final = ~t_next.any(dim=0)
            if is_final.any():
                parts.put(x_next[:, is_final])
            return x_next

    return Announcing()


def sample_stream(
    student: Denoiser,
    codec: FrameCodec,
    num_clips: int,
    num_frames: int,
    *,
    sampler: Sampler,
    seed: int,
    label: int | None = None,
) -> Generator[BytePart, None, None]:
    """Decoded frames of num_clips clips, part after part: the clips that evaluation makes of so many in one batch.

    label: the class of all clips; None: drawn alike from the classes that the student knows, if any.

    Raises:
        ValueError: a class that the student does not know, or see `generate`.
    """
    spec = student.spec.backbone
    rng = stream(seed, f"sample/{num_frames}")
    if label is not None:
        if not 0 <= label < spec.num_classes:
            raise ValueError(f"class must be one of the {spec.num_classes} that the student knows, got {label}")
        student = student.given(torch.full((num_clips,), label))
    elif spec.num_classes:
        student = student.given(torch.randint(spec.num_classes, (num_clips,), generator=rng))
    noise = torch.randn(num_clips, num_frames, spec.channels, spec.frame_size, spec.frame_size, generator=rng)
    for part in generate_stream(student, noise, schedule=student.spec.schedule, sampler=sampler, rng=rng):
        yield decoded(codec, part)


@torch.no_grad()
def decoded(codec: FrameCodec, latents: Video) -> BytePart:
    """Latents (B, t, c, h, w) as uint8 frames."""
    return torch.from_numpy(to_uint8(codec.decode(latents)))
