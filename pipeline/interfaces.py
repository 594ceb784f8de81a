"""The shapes and records through which the parts of the library meet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

Video = Float[Tensor, "B T C H W"]  # pixels in [-1, 1], or latents standardised by channel
NoiseLevel = Float[Tensor, "B T"]  # t of every frame, in [0, 1]; 0 = clean, 1 = noise
Scalar = Float[Tensor, ""]
Labels = Int[Tensor, " B"]  # classes, counted from 0


# Asks a denoiser or a discriminator about noised frames, in the context in which they are judged.
Judge = Callable[[Any, Video, NoiseLevel], Tensor]


def whole_clips(network: Callable[[Video, NoiseLevel], Tensor], x_t: Video, t: NoiseLevel) -> Tensor:
    """Judge frames together, as the clips that they make."""
    return network(x_t, t)


# The narrow waist: D(x_t, t) -> x0_hat, the posterior mean of the clean frames.
Denoise = Callable[[Video, NoiseLevel], Video]
# D(x_t, t, end=None): a network with an end level is also told where a step ends; None: at 0.
DenoiseTo = Callable[..., Video]


@dataclass(frozen=True)
class Rollout:
    """All that a loss may know of a method: how the student's frames came about."""

    x0_hat: Video  # clean prediction, carries the student's gradient
    x_t: Video  # the noisy frames it was predicted from
    t: NoiseLevel  # the level that each frame was predicted from
    counts: NoiseLevel  # how much each frame counts in a loss on data; 0 = context
    target: Video | None  # the data it should equal; None when the student runs free
    denoise: DenoiseTo  # the student at other levels of the same frames, same context and mask
    judge: Judge = whole_clips  # any network at noised frames of the law that this rollout draws from
    in_context: Judge = (
        whole_clips  # any network at noised frames in the context that the student predicted them from
    )


@dataclass(frozen=True)
class Progress:
    """What a unit of work says while it runs: step of num_steps, and the values of its curves at it."""

    step: int
    num_steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]


def no_progress(progress: Progress) -> None:
    """Listen to nothing."""
