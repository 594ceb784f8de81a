"""What a network's output means, and the clean frame that it implies.

At fixed x_t = alpha x_0 + sigma eps every prediction is linear in the clean frame: x_0 = c_skip x_t + c_out output,
so two functions of (alpha, sigma) are all that tells one from another. The name is EDM's, arXiv:2206.00364, eq. 7;
the cases are those of Salimans & Ho, arXiv:2202.00512, appendix D.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from pipeline.diffusion.log_snr import Coefficients, PerFrame
from pipeline.interfaces import Video


class Terms(NamedTuple):
    """x_0 = c_skip x_t + c_out output."""

    c_skip: PerFrame | float
    c_out: PerFrame | float


@dataclass(frozen=True)
class Prediction:
    """One parameterisation. needs_signal: its terms divide by alpha."""

    terms: Callable[[Tensor, Tensor, float], Terms]  # of alpha, sigma and the standard deviation of data
    needs_signal: bool = False

    def to_x0(self, output: Video, x_t: Video, at: Coefficients, sigma_data: float = 1.0) -> Video:
        """The clean frames that an output implies.

        Raises:
            ValueError: alpha is 0 for a prediction of noise.
        """
        if self.needs_signal:
            _refuse_zero(at.alpha, "alpha", "x0 to follow from the output")
        c_skip, c_out = self.terms(at.alpha, at.sigma, sigma_data)
        return c_skip * x_t + c_out * output

    def from_x0(self, x0: Video, x_t: Video, at: Coefficients, sigma_data: float = 1.0) -> Video:
        """The output that these clean frames are.

        Raises:
            ValueError: sigma is 0, where every output gives the same clean frame.
        """
        if self.needs_signal:
            _refuse_zero(at.alpha, "alpha", "the output to follow from x0")
        c_skip, c_out = self.terms(at.alpha, at.sigma, sigma_data)
        if isinstance(c_out, Tensor):
            _refuse_zero(c_out, "sigma", "the output to follow from x0")
        return (x0 - c_skip * x_t) / c_out


def _edm(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Terms:
    squared = sigma**2 + (sigma_data * alpha) ** 2
    return Terms(sigma_data**2 * alpha / squared, sigma * sigma_data / squared.sqrt())


def _v(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Terms:  # noqa: ARG001
    squared = alpha**2 + sigma**2
    return Terms(alpha / squared, -sigma / squared)


PREDICTIONS: dict[str, Prediction] = {
    "x0": Prediction(lambda alpha, sigma, sigma_data: Terms(0.0, 1.0)),  # noqa: ARG005
    "eps": Prediction(lambda alpha, sigma, sigma_data: Terms(1 / alpha, -sigma / alpha), needs_signal=True),  # noqa: ARG005
    "v": Prediction(_v),  # alpha eps - sigma x_0
    "score": Prediction(lambda alpha, sigma, sigma_data: Terms(1 / alpha, sigma**2 / alpha), needs_signal=True),  # noqa: ARG005
    "edm": Prediction(_edm),  # F, of unit variance for data of standard deviation sigma_data
    "flow_velocity": Prediction(  # eps - x_0
        lambda alpha, sigma, sigma_data: Terms(1 / (alpha + sigma), -sigma / (alpha + sigma))  # noqa: ARG005
    ),
}


def _refuse_zero(coefficient: Tensor, name: str, what: str) -> None:
    if (coefficient == 0).any():
        raise ValueError(f"{name} must not be 0 for {what}, got a frame with {name}=0")
