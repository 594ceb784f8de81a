"""Weightings of the denoising loss, each as the factor on the squared error of x0_hat.

With c_x0 = 1 the errors of the other predictions are multiples of it at fixed x_t:
|eps - eps_hat|^2 = (alpha/sigma)^2 |x0 - x0_hat|^2 and |u - u_hat|^2 = ((alpha + sigma)/sigma)^2 |x0 - x0_hat|^2.
Kingma & Gao, arXiv:2303.00848, section 2.2.
"""

from collections.abc import Callable

import torch

from pipeline.diffusion.schedule import Coefficients, PerFrame

Weighting = Callable[[Coefficients], PerFrame]


def _x0(at: Coefficients) -> PerFrame:
    return torch.ones_like(at.alpha)


def _eps(at: Coefficients) -> PerFrame:
    return (at.alpha / at.sigma) ** 2


def _flow_velocity(at: Coefficients) -> PerFrame:
    return ((at.alpha + at.sigma) / at.sigma) ** 2


WEIGHTINGS: dict[str, Weighting] = {"x0": _x0, "eps": _eps, "flow_velocity": _flow_velocity}
