"""Noise schedules: how much signal and how much noise a frame holds at time t."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.interfaces import NoiseLevel, Video
from pipeline.rules import above

PerFrame = Float[Tensor, "B T 1 1 1"]


class Coefficients(NamedTuple):
    """x_t = alpha x_0 + sigma eps, one pair a frame, shaped to multiply a video."""

    alpha: PerFrame
    sigma: PerFrame


@runtime_checkable
class Schedule(Protocol):
    """A schedule is what it does to a frame at time t."""

    def at(self, t: NoiseLevel) -> Coefficients: ...


@dataclass(frozen=True)
class FlowMatching:
    """alpha = 1 - s, sigma = s with s = k t / (1 + (k - 1) t): the straight path, time-shifted by k.

    log-SNR(t) = 2 ln((1 - t) / t) - 2 ln k. k > 1 spends more of the uniform t at high noise.
    Flow Matching, arXiv:2210.02747, eq. 22; shift: arXiv:2403.03206, eq. 23.
    """

    shift: float = 1.0

    def __post_init__(self) -> None:
        above(0, shift=self.shift)

    def at(self, t: NoiseLevel) -> Coefficients:
        """Coefficients of every frame. Raises ValueError for a level outside [0, 1]."""
        check_level(t)
        sigma = (self.shift * t / (1 + (self.shift - 1) * t))[:, :, None, None, None]
        return Coefficients(1 - sigma, sigma)


SCHEDULES = {"flow_matching": FlowMatching}


def check_level(t: Tensor) -> None:
    """Raises ValueError unless t has shape (B, T) and lies in [0, 1]."""
    if t.ndim != 2:
        raise ValueError(f"t must have shape (B, T), got {tuple(t.shape)}")
    low, high = torch.aminmax(t)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"t must be in [0, 1], got values from {low.item():g} to {high.item():g}")


def add_noise(schedule: Schedule, x0: Video, eps: Video, t: NoiseLevel) -> Video:
    """x_t = alpha(t) x_0 + sigma(t) eps, frame by frame."""
    alpha, sigma = schedule.at(t)
    return alpha * x0 + sigma * eps
