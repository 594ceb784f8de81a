"""The KL of a path, step by step: the sum over frames of E_context KL(frame given context).

With true contexts it is the forward KL of the path, KL(data || student); with the model's own the reverse one.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.laboratory.estimators import BOTH_DENSITIES, Estimate, mean_of

ByFrame = Float[Tensor, "N F"]  # ln of the density of every frame of a path given those before it


def conditional_log_densities(law: GaussianMixture, x: Float[Tensor, "N F"]) -> ByFrame:
    """ln q(x_f | x_<f) of data, exactly."""
    x = x.double()
    return torch.stack([law.next_frame(x[:, :f]).log_prob(x[:, f]) for f in range(x.shape[1])], 1)


def kl_by_frame(own: ByFrame, other: ByFrame) -> list[Estimate]:
    """E KL(own || other) of every frame, at paths that were drawn from `own`; unbiased.

    The path is context and draw in one: ln own - ln other at it is an unbiased draw of the KL of its context.
    """
    return [mean_of(ratio, estimator=BOTH_DENSITIES) for ratio in (own - other).T]
