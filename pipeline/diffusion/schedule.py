"""Noise schedules: the log-SNR of a frame at time t, its inverse, and how often training visits it.

x_t = alpha x_0 + sigma eps and log_snr = ln(alpha^2 / sigma^2), decreasing in t. Only the log-SNR tells schedules
apart; the family says how a frame of that log-SNR is scaled. t = 0 is the clean frame under every schedule.
Kingma & Gao, arXiv:2303.00848, table 1 and section 2.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.log_snr import Coefficients, LogSnr, LogSnrSchedule, normal_density
from pipeline.interfaces import NoiseLevel, Video
from pipeline.rules import above, at_least, one_of, within


@runtime_checkable
class Schedule(Protocol):
    """What the mathematics asks of a schedule. t and log-SNRs may have any shape where none is given."""

    @property
    def family(self) -> str: ...

    @property
    def native(self) -> "Schedule": ...

    @property
    def range(self) -> tuple[float, float]: ...

    def log_snr(self, t: Tensor) -> LogSnr: ...

    def level(self, log_snr: LogSnr) -> Tensor: ...

    def density(self, log_snr: LogSnr) -> Tensor: ...

    def at(self, t: NoiseLevel) -> Coefficients: ...

    def draw(self, u: NoiseLevel) -> NoiseLevel: ...


@dataclass(frozen=True)
class FlowMatching(LogSnrSchedule):
    """log_snr = 2 ln((1 - t) / t) - 2 ln shift: in its own family the straight path, sigma = k t / (1 + (k - 1) t).

    A shift k > 1 spends more of the uniform t at high noise. Flow Matching, arXiv:2210.02747, eq. 22; shift:
    arXiv:2403.03206, eq. 23.
    """

    shift: float = 1.0
    family: str = field(default="flow", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        above(0, shift=self.shift)

    def _log_snr(self, t: Tensor) -> LogSnr:
        return 2 * (torch.log1p(-t) - t.log() - math.log(self.shift))

    def _level(self, log_snr: LogSnr) -> Tensor:
        return torch.sigmoid(-log_snr / 2 - math.log(self.shift))

    def _density(self, log_snr: LogSnr) -> Tensor:
        t = self._level(log_snr)
        return t * (1 - t) / 2  # sech^2(log_snr / 4 + ln(k) / 2) / 8


@dataclass(frozen=True)
class Cosine(LogSnrSchedule):
    """log_snr = -2 ln tan(pi t / 2) + 2 s. arXiv:2102.09672, eq. 17 without its offset.

    log_shift: s = ln(64 / d) for frames of d pixels a side. arXiv:2301.11093, eq. 4.
    """

    log_shift: float = 0.0

    def _log_snr(self, t: Tensor) -> LogSnr:
        return 2 * (self.log_shift - torch.tan(t * (math.pi / 2)).log())

    def _level(self, log_snr: LogSnr) -> Tensor:
        return torch.atan(torch.exp(self.log_shift - log_snr / 2)) * (2 / math.pi)

    def _density(self, log_snr: LogSnr) -> Tensor:
        return 1 / (2 * math.pi * torch.cosh(log_snr / 2 - self.log_shift))


@dataclass(frozen=True)
class LogitNormal(LogSnrSchedule):
    """The flow-matching path at t' with logit(t') ~ N(mean, std^2): log_snr ~ N(-2 mean, 4 std^2).

    arXiv:2403.03206, eq. 19.
    """

    mean: float = 0.0
    std: float = 1.0
    family: str = field(default="flow", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        above(0, std=self.std)

    def _log_snr(self, t: Tensor) -> LogSnr:
        return -2 * (self.mean + self.std * torch.special.ndtri(t))

    def _level(self, log_snr: LogSnr) -> Tensor:
        return torch.special.ndtr((-log_snr / 2 - self.mean) / self.std)

    def _density(self, log_snr: LogSnr) -> Tensor:
        return normal_density(log_snr, -2 * self.mean, 2 * self.std)


@dataclass(frozen=True)
class EdmTraining(LogSnrSchedule):
    """log_snr ~ N(mean, std^2): ln sigma ~ N(-1.2, 1.2^2) by default. EDM, arXiv:2206.00364, table 1."""

    mean: float = 2.4
    std: float = 2.4

    def __post_init__(self) -> None:
        super().__post_init__()
        above(0, std=self.std)

    def _log_snr(self, t: Tensor) -> LogSnr:
        return self.mean - self.std * torch.special.ndtri(t)

    def _level(self, log_snr: LogSnr) -> Tensor:
        return torch.special.ndtr((self.mean - log_snr) / self.std)

    def _density(self, log_snr: LogSnr) -> Tensor:
        return normal_density(log_snr, self.mean, self.std)


@dataclass(frozen=True)
class EdmSampling(LogSnrSchedule):
    """sigma / alpha = (sigma_max^(1/rho) + (1 - t) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho.

    EDM, arXiv:2206.00364, eq. 5.
    """

    rho: float = 7.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        super().__post_init__()
        above(0, rho=self.rho, sigma_min=self.sigma_min)
        above(self.sigma_min, sigma_max=self.sigma_max)

    def _log_snr(self, t: Tensor) -> LogSnr:
        low, high = self._roots
        return -2 * self.rho * torch.log(high + (1 - t) * (low - high))

    def _level(self, log_snr: LogSnr) -> Tensor:
        low, high = self._roots
        return ((torch.exp(-log_snr / (2 * self.rho)) - low) / (high - low)).clamp(0, 1)

    def _density(self, log_snr: LogSnr) -> Tensor:
        low, high = self._roots
        return torch.exp(-log_snr / (2 * self.rho)) / (2 * self.rho * (high - low))

    @property
    def range(self) -> tuple[float, float]:
        return -2 * math.log(self.sigma_max), -2 * math.log(self.sigma_min)

    @property
    def _roots(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)


@dataclass(frozen=True)
class VpLinear(LogSnrSchedule):
    """alpha^2 = exp(-(beta_max - beta_min) t^2 / 2 - beta_min t). Score SDE, arXiv:2011.13456, eq. 32."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        above(0, beta_min=self.beta_min)
        above(self.beta_min, beta_max=self.beta_max)

    def _log_snr(self, t: Tensor) -> LogSnr:
        return -torch.expm1(t * ((self.beta_max - self.beta_min) * t / 2 + self.beta_min)).log()

    def _level(self, log_snr: LogSnr) -> Tensor:
        slope = self.beta_max - self.beta_min
        drift = 2 * slope * torch.nn.functional.softplus(-log_snr)  # less cancellation than sqrt(b^2 + x) - b
        return (drift / slope / ((self.beta_min**2 + drift).sqrt() + self.beta_min)).clamp(0, 1)

    def _density(self, log_snr: LogSnr) -> Tensor:
        rate = self.beta_min + (self.beta_max - self.beta_min) * self._level(log_snr)
        return torch.sigmoid(-log_snr) / rate

    @property
    def range(self) -> tuple[float, float]:
        return self._log_snr(torch.ones((), dtype=torch.float64)).item(), math.inf


@dataclass(frozen=True)
class Ddpm(LogSnrSchedule):
    """A table of num_levels levels: t in ((k - 1) / K, k / K] has the log-SNR of the table's entry k - 1.

    betas `linear` from beta_min to beta_max, scaled by 1000 / K (arXiv:2006.11239, section 4); `cosine`
    (arXiv:2102.09672, eq. 17); `sigmoid` between -3 and 3 (arXiv:2212.11972, section 2.2). Each is at most .999.
    """

    num_levels: int = 1000
    betas: str = "linear"
    beta_min: float = 1e-4
    beta_max: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(2, num_levels=self.num_levels)
        one_of(("linear", "cosine", "sigmoid"), betas=self.betas)
        within(0, 1, open_low=True, open_high=True, beta_min=self.beta_min, beta_max=self.beta_max)

    def _log_snr(self, t: Tensor) -> LogSnr:
        index = torch.ceil(t * self.num_levels - TABLE_TOLERANCE).long() - 1
        return self.table.to(t.device)[index.clamp(0, self.num_levels - 1)]

    def _level(self, log_snr: LogSnr) -> Tensor:
        """The level of the table whose log-SNR is nearest."""
        table = self.table.to(log_snr.device)
        above_it = torch.searchsorted(-table, -log_snr).clamp(1, self.num_levels - 1)
        nearer_left = table[above_it - 1] - log_snr < log_snr - table[above_it]
        return torch.where(nearer_left, above_it, above_it + 1).double() / self.num_levels

    def _density(self, log_snr: LogSnr) -> Tensor:
        """Of the table's entries spread evenly between its neighbours; 0 outside."""
        table = self.table.to(log_snr.device)
        index = torch.searchsorted(-table, -log_snr).clamp(1, self.num_levels - 1)
        return 1 / ((self.num_levels - 1) * (table[index - 1] - table[index]))

    @property
    def range(self) -> tuple[float, float]:
        return self.table[-1].item(), self.table[0].item()

    @cached_property
    def table(self) -> Float[Tensor, " K"]:
        """log-SNR of every level, from least noise to most."""
        alpha_squared = torch.cumprod(1 - self._betas(), 0)
        return torch.logit(alpha_squared)

    def _betas(self) -> Float[Tensor, " K"]:
        u = torch.linspace(0, 1, self.num_levels + 1, dtype=torch.float64)
        if self.betas == "linear":
            scale = 1000 / self.num_levels
            ends = (scale * self.beta_min, scale * self.beta_max)
            return torch.linspace(*ends, self.num_levels, dtype=torch.float64).clamp_max(MAX_BETA)
        if self.betas == "cosine":
            alpha_squared = torch.cos((u + 0.008) / 1.008 * (math.pi / 2)) ** 2
        else:
            alpha_squared = torch.sigmoid(torch.tensor(3.0).double()) - torch.sigmoid(6 * u - 3)
        return (1 - alpha_squared[1:] / alpha_squared[:-1]).clamp_max(MAX_BETA)


MAX_BETA = 0.999
TABLE_TOLERANCE = 1e-3  # of t K: float32 levels k / K lie a little above or below it
SCHEDULES = {
    "flow_matching": FlowMatching,
    "logit_normal": LogitNormal,
    "cosine": Cosine,
    "edm_training": EdmTraining,
    "edm_sampling": EdmSampling,
    "vp_linear": VpLinear,
    "ddpm": Ddpm,
}


def add_noise(schedule: Schedule, x0: Video, eps: Video, t: NoiseLevel) -> Video:
    """x_t = alpha(t) x_0 + sigma(t) eps, frame by frame."""
    alpha, sigma = schedule.at(t)
    return alpha * x0 + sigma * eps
