"""Weightings: every denoising objective as one function w(log_snr), whatever the schedule and the prediction.

L_w = 1/2 integral w(l) E|eps - eps_hat|^2 dl. The mean of c(l) |eps - eps_hat|^2 under a schedule of density p is
L_w with w = 2 c p. Kingma & Gao, arXiv:2303.00848, eq. 2 and table 1.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.log_snr import coefficients
from pipeline.diffusion.prediction import PREDICTIONS
from pipeline.diffusion.schedule import Cosine, EdmTraining, Schedule
from pipeline.rules import above, at_least, one_of, within

ByFrame = Float[Tensor, "B T"]


@runtime_checkable
class Weighting(Protocol):
    """w of every frame of a clip, up to a constant. native: the schedule of the run."""

    def weight(self, log_snr: ByFrame, native: Schedule) -> ByFrame: ...


@dataclass(frozen=True)
class Elbo:
    """w = 1: the variational bound itself."""

    def weight(self, log_snr: ByFrame, native: Schedule) -> ByFrame:  # noqa: ARG002
        return torch.ones_like(log_snr)


@dataclass(frozen=True)
class PredictionL2:
    """The plain squared error of a prediction under a schedule: what most papers train on.

    on: the schedule whose plain mean it is; None is that of the run, which then is part of the objective. v is that
    of frames whose variance is preserved.
    """

    prediction: str = "flow_velocity"
    on: Schedule | None = None

    def __post_init__(self) -> None:
        one_of(PREDICTIONS, prediction=self.prediction)

    def weight(self, log_snr: ByFrame, native: Schedule) -> ByFrame:
        return 2 * (self.on or native).density(log_snr) * error_ratio(self.prediction, log_snr)


@dataclass(frozen=True)
class Exponential:
    """w = exp(-log_snr / 2): v-L2 on the cosine schedule and flow-matching velocity on the straight path alike."""

    def weight(self, log_snr: ByFrame, native: Schedule) -> ByFrame:  # noqa: ARG002
        return torch.exp(-log_snr / 2)


@dataclass(frozen=True)
class Sigmoid:
    """w = sigmoid(offset - log_snr + 2 log_shift). arXiv:2303.00848, section 5; shifted: arXiv:2410.19324."""

    offset: float = 2.0
    log_shift: float = 0.0  # s = ln(64 / d) for frames of d pixels a side

    def weight(self, log_snr: ByFrame, native: Schedule) -> ByFrame:  # noqa: ARG002
        return torch.sigmoid(self.offset + 2 * self.log_shift - log_snr)


@dataclass(frozen=True)
class Edm:
    """The loss of EDM: the error of F where ln sigma ~ N(-1.2, 1.2^2). arXiv:2206.00364, table 1."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        above(0, sigma_data=self.sigma_data)

    def weight(self, log_snr: ByFrame, native: Schedule) -> ByFrame:  # noqa: ARG002
        return 2 * EdmTraining().density(log_snr) * error_ratio("edm", log_snr, self.sigma_data)


@dataclass(frozen=True)
class EdmMonotonic(Edm):
    """Edm, constant below the log-SNR at which it is largest. arXiv:2303.00848, section 5."""

    @cached_property
    def peak(self) -> float:
        """Where the weight of Edm is largest: d ln w / dl = 0, which falls in l below the schedule's mean."""
        from scipy.optimize import root_scalar

        law = EdmTraining()

        def slope(x: float) -> float:
            return (law.mean - x) / law.std**2 - 1 / (1 + self.sigma_data**2 * math.exp(x))

        return root_scalar(slope, bracket=(-50.0, law.mean), xtol=1e-12).root

    def weight(self, log_snr: ByFrame, native: Schedule) -> ByFrame:
        return super().weight(log_snr.clamp_min(self.peak), native)


@dataclass(frozen=True)
class MinSnr:
    """eps-L2 with c = min(1, limit / SNR) under a schedule. arXiv:2303.09556, eq. 8."""

    limit: float = 5.0
    on: Schedule | None = None

    def __post_init__(self) -> None:
        above(0, limit=self.limit)

    def weight(self, log_snr: ByFrame, native: Schedule) -> ByFrame:
        return 2 * (self.on or native).density(log_snr) * (self.limit * torch.exp(-log_snr)).clamp_max(1)


@dataclass(frozen=True)
class P2:
    """eps-L2 with c = (k + SNR)^-gamma under a schedule. arXiv:2204.00227, eq. 8."""

    gamma: float = 1.0
    k: float = 1.0
    on: Schedule | None = None

    def __post_init__(self) -> None:
        at_least(0, gamma=self.gamma)
        above(0, k=self.k)

    def weight(self, log_snr: ByFrame, native: Schedule) -> ByFrame:
        return 2 * (self.on or native).density(log_snr) * (self.k + torch.exp(log_snr)) ** -self.gamma


@dataclass(frozen=True)
class FusedSnr:
    """min-SNR that counts the signal which the frames before bring. Diffusion Forcing, arXiv:2407.01392, appendix.

    As its code has it: the SNR of a frame is joined with an average of the clipped SNRs of earlier frames, which
    decays by `decay` a frame. prediction: whose squared error the code weighs; the three do not agree.
    """

    limit: float = 5.0
    decay: float = 0.98
    prediction: str = "v"
    on: Schedule | None = None

    def __post_init__(self) -> None:
        above(0, limit=self.limit)
        within(0, 1, decay=self.decay)
        one_of(("eps", "x0", "v"), prediction=self.prediction)

    def weight(self, log_snr: ByFrame, native: Schedule) -> ByFrame:
        factor = self.factor(log_snr) * error_ratio(self.prediction, log_snr)
        return 2 * (self.on or native).density(log_snr) * factor

    def factor(self, log_snr: ByFrame) -> ByFrame:
        """On the squared error of `prediction`."""
        snr = torch.exp(log_snr) / self.limit
        clipped = snr.clamp_max(1)
        past, before = clipped[:, 0], [torch.zeros_like(clipped[:, 0])]
        for frame in range(1, snr.shape[1]):
            before.append(past)
            past = self.decay * past + (1 - self.decay) * clipped[:, frame]
        brought = self.decay * torch.stack(before, 1)
        joined_clipped = 1 - (1 - brought) * (1 - clipped)
        joined = 1 - (1 - brought) * (1 - snr)
        if self.prediction == "eps":
            return joined_clipped / joined
        if self.prediction == "x0":
            return self.limit * joined_clipped
        return self.limit * joined_clipped / (self.limit * joined + 1)


WEIGHTINGS: dict[str, type] = {
    "elbo": Elbo,
    "prediction_l2": PredictionL2,
    "exponential": Exponential,
    "sigmoid": Sigmoid,
    "edm": Edm,
    "edm_monotonic": EdmMonotonic,
    "min_snr": MinSnr,
    "p2": P2,
    "fused_snr": FusedSnr,
}


def error_ratio(prediction: str, log_snr: Tensor, sigma_data: float = 1.0) -> Tensor:
    """|output - output_hat|^2 / |eps - eps_hat|^2 at fixed x_t, of frames whose variance is preserved."""
    alpha, sigma = coefficients(log_snr, "variance_preserving")
    c_out = PREDICTIONS[prediction].terms(alpha, sigma, sigma_data).c_out
    return torch.exp(-log_snr) / c_out**2


def is_monotone(weighting: Weighting, native: Schedule | None = None) -> bool:
    """Whether w never rises with the log-SNR, on 4,001 points of [-9.5, 12] and for a clip of one frame.

    A monotone weighting makes L_w a mean of KL divergences between noised frames. arXiv:2303.00848, theorem 1.
    """
    grid = torch.linspace(-9.5, 12, 4001, dtype=torch.float64)
    w = weighting.weight(grid[:, None], native or Cosine())[:, 0]
    return bool((w[1:] <= w[:-1] * (1 + MONOTONE_TOLERANCE)).all())


MONOTONE_TOLERANCE = 1e-9
