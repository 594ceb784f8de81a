"""What a network's output means, and the clean frame that it implies.

All follow from x_t = alpha x_0 + sigma eps at fixed x_t. Salimans & Ho, arXiv:2202.00512, appendix D.
"""

from collections.abc import Callable
from typing import NamedTuple

from pipeline.diffusion.schedule import Coefficients
from pipeline.interfaces import Video


class Prediction(NamedTuple):
    """One parameterisation: the clean frames from the output, and the output from the clean frames."""

    to_x0: Callable[[Video, Video, Coefficients], Video]  # (output, x_t, coefficients) -> x0
    from_x0: Callable[[Video, Video, Coefficients], Video]  # (x0, x_t, coefficients) -> output


def _eps_to_x0(eps: Video, x_t: Video, at: Coefficients) -> Video:
    return (x_t - at.sigma * eps) / at.alpha


def _x0_to_eps(x0: Video, x_t: Video, at: Coefficients) -> Video:
    return (x_t - at.alpha * x0) / at.sigma


def _velocity_to_x0(velocity: Video, x_t: Video, at: Coefficients) -> Video:
    return (x_t - at.sigma * velocity) / (at.alpha + at.sigma)


def _x0_to_velocity(x0: Video, x_t: Video, at: Coefficients) -> Video:
    return (x_t - (at.alpha + at.sigma) * x0) / at.sigma


PREDICTIONS = {
    "x0": Prediction(lambda output, x_t, at: output, lambda x0, x_t, at: x0),  # noqa: ARG005
    "eps": Prediction(_eps_to_x0, _x0_to_eps),
    "flow_velocity": Prediction(_velocity_to_x0, _x0_to_velocity),  # u = eps - x_0; finite at every level
}
