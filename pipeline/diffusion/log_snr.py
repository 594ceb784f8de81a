"""What log-SNRs mean for frames: the families of scaling, and what all schedules share.

x_t = alpha x_0 + sigma eps and log_snr = ln(alpha^2 / sigma^2). Two families that agree in log_snr hold the same
frame at another scale. Kingma & Gao, arXiv:2303.00848, section 2.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.interfaces import NoiseLevel
from pipeline.rules import one_of

PerFrame = Float[Tensor, "B T 1 1 1"]
LogSnr = Tensor  # of any shape
FAMILIES: dict[str, Callable[[LogSnr], tuple[Tensor, Tensor]]] = {
    "variance_preserving": lambda x: (torch.sigmoid(x).sqrt(), torch.sigmoid(-x).sqrt()),
    "variance_exploding": lambda x: (torch.ones_like(x), torch.exp(-x / 2)),
    "flow": lambda x: (torch.sigmoid(x / 2), torch.sigmoid(-x / 2)),  # alpha + sigma = 1
}


RANGE_TOLERANCE = 1e-9  # of log-SNRs that rounding puts outside


class Coefficients(NamedTuple):
    """x_t = alpha x_0 + sigma eps, one pair a frame, shaped to multiply a video."""

    alpha: PerFrame
    sigma: PerFrame


@dataclass(frozen=True)
class LogSnrSchedule(ABC):
    """What all schedules share, once log_snr is known."""

    family: str = field(default="variance_preserving", kw_only=True)

    def __post_init__(self) -> None:
        one_of(FAMILIES, family=self.family)

    @property
    def range(self) -> tuple[float, float]:
        """The log-SNRs at t = 1 and at t = 0; infinite where an end has no signal or no noise."""
        return -math.inf, math.inf

    def log_snr(self, t: Tensor) -> LogSnr:
        """ln(alpha^2 / sigma^2) at t in [0, 1], of any shape, in float64; infinite where `range` is.

        Raises:
            ValueError: a t outside [0, 1].
        """
        _check_unit_interval(t)
        return self._log_snr(t.double())

    def level(self, log_snr: LogSnr) -> Tensor:
        """The inverse: t in [0, 1], float64.

        Raises:
            ValueError: a log-SNR outside `range`.
        """
        log_snr, (low, high) = log_snr.double(), self.range
        given_low, given_high = (x.item() for x in torch.aminmax(log_snr))
        if not (given_low >= low - RANGE_TOLERANCE and given_high <= high + RANGE_TOLERANCE):  # nan is refused too
            raise ValueError(
                f"log_snr must be in [{low:.4f}, {high:.4f}], the range of {type(self).__name__}, got values from "
                f"{given_low:g} to {given_high:g}"
            )
        return self._level(log_snr).clamp(0, 1)

    def density(self, log_snr: LogSnr) -> Tensor:
        """p(log_snr) = -dt / dlog_snr, which uniform levels give; 0 outside `range`. float64."""
        log_snr, (low, high) = log_snr.double(), self.range
        inside = (log_snr >= low - RANGE_TOLERANCE) & (log_snr <= high + RANGE_TOLERANCE)
        return torch.where(inside, self._density(log_snr.clamp(low, high)), 0.0)

    @abstractmethod
    def _log_snr(self, t: Tensor) -> LogSnr: ...

    @abstractmethod
    def _level(self, log_snr: LogSnr) -> Tensor: ...

    @abstractmethod
    def _density(self, log_snr: LogSnr) -> Tensor: ...

    def at(self, t: NoiseLevel) -> Coefficients:
        """alpha and sigma of every frame, in the type of t; exactly 1 and 0 at t = 0.

        Raises:
            ValueError: t is not (B, T) or outside [0, 1], or sigma is infinite there.
        """
        check_level(t)
        log_snr = self.log_snr(t).masked_fill(t == 0, torch.inf)
        alpha, sigma = coefficients(log_snr, self.family)
        return Coefficients(*(c.to(t.dtype)[:, :, None, None, None] for c in (alpha, sigma)))

    @property
    def native(self) -> "LogSnrSchedule":
        """The schedule of the network: this one."""
        return self

    def draw(self, u: NoiseLevel) -> NoiseLevel:
        """The levels at which frames are trained, from uniform ones: the same."""
        return u


def coefficients(log_snr: LogSnr, family: str) -> tuple[Tensor, Tensor]:
    """alpha and sigma of a family, in the shape of log_snr.

    Raises:
        ValueError: an unknown family, or an infinite sigma: variance_exploding frames of no signal.
    """
    one_of(FAMILIES, family=family)
    alpha, sigma = FAMILIES[family](log_snr)
    if not sigma.isfinite().all():
        raise ValueError(f"sigma must be finite: family={family}, log_snr={log_snr.min().item():g}")
    return alpha, sigma


def normal_density(x: Tensor, mean: float, std: float) -> Tensor:
    """Density of N(mean, std^2)."""
    return torch.exp(-(((x.double() - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))


def check_level(t: Tensor) -> None:
    """Raises ValueError unless t has shape (B, T) and lies in [0, 1]."""
    if t.ndim != 2:
        raise ValueError(f"t must have shape (B, T), got {tuple(t.shape)}")
    _check_unit_interval(t)


def _check_unit_interval(t: Tensor) -> None:
    low, high = torch.aminmax(t)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"t must be in [0, 1], got values from {low.item():g} to {high.item():g}")
