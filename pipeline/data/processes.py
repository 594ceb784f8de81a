"""Processes of known density: families with free parameters; params.yaml has those on which cells are measured."""

from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from pipeline.data.processes_mixture import SHARE_TOLERANCE, GaussianMixture, gaussian
from pipeline.rules import above, at_least


@runtime_checkable
class Process(Protocol):
    """A frozen dataclass of parameters; its law covers the frames of one pixel."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def num_frames(self) -> int: ...

    @property
    def law(self) -> GaussianMixture: ...


@dataclass(frozen=True)
class LineMixture:
    """sum_k shares_k N(means_k, stds_k^2): one frame."""

    shares: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]
    num_frames: int = 1

    def __post_init__(self) -> None:
        if not len(self.shares) == len(self.means) == len(self.stds) > 0:
            raise ValueError(
                f"shares, means and stds must be one a component: shares={self.shares}, means={self.means}, "
                f"stds={self.stds}"
            )
        above(0, **{f"stds[{k}]": std for k, std in enumerate(self.stds)})
        _check_shares(self.shares)
        if self.num_frames != 1:
            raise ValueError(f"num_frames must be 1 for a mixture on the line, got {self.num_frames}")

    @property
    def law(self) -> GaussianMixture:
        means, stds = (_numbers(values)[:, None] for values in (self.means, self.stds))
        return GaussianMixture(_numbers(self.shares), means, stds[..., None])


@dataclass(frozen=True)
class MixtureAutoregression:
    """x_1 ~ first, x_f = slope x_{f-1} + u_f with u_f ~ innovation, drawn anew at each frame.

    A mixture of as many Gaussians as there are ways to draw a component at each frame.
    """

    first: LineMixture
    innovation: LineMixture
    slope: float
    num_frames: int = 2

    def __post_init__(self) -> None:
        at_least(1, num_frames=self.num_frames)

    @property
    def law(self) -> GaussianMixture:
        draws = [self.first] + [self.innovation] * (self.num_frames - 1)
        shares, means, factors = [], [], []
        to_frames = propagation(_numbers([self.slope] * (self.num_frames - 1)))
        for chosen in product(*(range(len(draw.shares)) for draw in draws)):
            picks = list(zip(draws, chosen, strict=True))
            shares.append(_numbers([draw.shares[k] for draw, k in picks]).prod())
            means.append(to_frames @ _numbers([draw.means[k] for draw, k in picks]))
            factors.append(to_frames * _numbers([draw.stds[k] for draw, k in picks]))
        return GaussianMixture(torch.stack(shares), torch.stack(means), torch.stack(factors))


@dataclass(frozen=True)
class Mode:
    """x_1 ~ N(mean, std^2), x_f | x_{f-1} ~ N(slope x_{f-1} + shift, noise^2)."""

    mean: float
    std: float
    slope: float
    shift: float
    noise: float

    def __post_init__(self) -> None:
        above(0, std=self.std, noise=self.noise)


@dataclass(frozen=True)
class PersistentModes:
    """A mode drawn once a clip, with dynamics of its own for all frames."""

    shares: tuple[float, ...]
    modes: tuple[Mode, ...]
    num_frames: int = 2

    def __post_init__(self) -> None:
        at_least(1, num_frames=self.num_frames)
        if not len(self.shares) == len(self.modes) > 0:
            raise ValueError(
                f"shares must be one a mode: {len(self.shares)} shares={self.shares}, {len(self.modes)} modes"
            )
        _check_shares(self.shares)

    @property
    def law(self) -> GaussianMixture:
        rest = self.num_frames - 1
        means, factors = [], []
        for mode in self.modes:
            to_frames = propagation(_numbers([mode.slope] * rest))
            means.append(to_frames @ _numbers([mode.mean] + [mode.shift] * rest))
            factors.append(to_frames * _numbers([mode.std] + [mode.noise] * rest))
        return GaussianMixture(_numbers(self.shares), torch.stack(means), torch.stack(factors))


@dataclass(frozen=True)
class LinearGaussian:
    """x_f = sum_j coefficients_j x_{f-j} + noise, stationary, of mean 0 and variance 1."""

    coefficients: tuple[float, ...]
    num_frames: int = 4

    def __post_init__(self) -> None:
        at_least(1, num_frames=self.num_frames, num_coefficients=len(self.coefficients))
        companion = torch.diag(torch.ones(len(self.coefficients) - 1, dtype=torch.float64), -1)
        companion[0] = _numbers(self.coefficients)
        largest = torch.linalg.eigvals(companion).abs().max().item()
        if not largest < 1:
            raise ValueError(
                f"coefficients must make a stationary process: the largest root of {self.coefficients} is "
                f"{largest:.4f}, and must be below 1"
            )

    @property
    def autocorrelation(self) -> Tensor:
        """At lags 0 .. num_frames - 1: Yule-Walker, rho_k = sum_j coefficients_j rho_|k-j|."""
        order = len(self.coefficients)
        system, constant = torch.eye(order, dtype=torch.float64), torch.zeros(order, dtype=torch.float64)
        for lag in range(1, order + 1):
            for j, coefficient in enumerate(self.coefficients, start=1):
                if lag == j:
                    constant[lag - 1] += coefficient
                else:
                    system[lag - 1, abs(lag - j) - 1] -= coefficient
        rho = [1.0, *torch.linalg.solve(system, constant).tolist()]
        while len(rho) < self.num_frames:
            rho.append(sum(c * rho[-j] for j, c in enumerate(self.coefficients, start=1)))
        return _numbers(rho[: self.num_frames])

    @property
    def law(self) -> GaussianMixture:
        frames = torch.arange(self.num_frames)
        covariance = self.autocorrelation[(frames[:, None] - frames).abs()]
        return gaussian(torch.zeros(self.num_frames, dtype=torch.float64), torch.linalg.cholesky(covariance))


def propagation(slopes: Tensor) -> Tensor:
    """How what enters at frame g is felt at frame f >= g, (F, F): the product of the F - 1 slopes between."""
    rows = [torch.ones(1, dtype=slopes.dtype)]
    for slope in slopes:
        rows.append(torch.cat([slope * rows[-1], torch.ones(1, dtype=slopes.dtype)]))
    return torch.stack([torch.nn.functional.pad(row, (0, len(rows) - len(row))) for row in rows])


def _check_shares(shares: tuple[float, ...]) -> None:
    above(0, **{f"shares[{k}]": share for k, share in enumerate(shares)})
    if abs(sum(shares) - 1) > SHARE_TOLERANCE:
        raise ValueError(f"shares must sum to 1, got {shares}")


def _numbers(values: "list[float] | tuple[float, ...]") -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


KNOWN_DENSITY: dict[str, type[Process]] = {
    "line_mixture": LineMixture,
    "mixture_autoregression": MixtureAutoregression,
    "persistent_modes": PersistentModes,
    "linear_gaussian": LinearGaussian,
}
