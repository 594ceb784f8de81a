"""The last step of the likelihood: a Gaussian's probability of the bin that a discrete value stands for.

Values are rounded, so their law is a table of bins and not a density; a model that ends in a Gaussian gives each
bin the mass inside. DDPM, arXiv:2006.11239, eq. 13.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

PerChannel = Float[Tensor, "C 1 1"]


@dataclass(frozen=True)
class Bins:
    """A value x stands for [x - width / 2, x + width / 2]; low and high, the ends of the range, for all beyond too.

    Numbers, or one a channel of the frames. Without ends every bin is closed.
    """

    width: float | PerChannel
    low: float | PerChannel = -math.inf
    high: float | PerChannel = math.inf

    def __post_init__(self) -> None:
        if not (torch.as_tensor(self.width) > 0).all():
            raise ValueError(f"width must be above 0, got {self.width}")

    def edges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper end of each value's bin, in float64; half a width of rounding is forgiven at the ends."""
        x, half = x.double(), self.width / 2
        lower, upper = x - half, x + half
        return (
            lower.masked_fill(x < self.low + half, -math.inf),
            upper.masked_fill(x > self.high - half, math.inf),
        )


PIXEL_BINS = Bins(2 / 255, -1.0, 1.0)  # of uint8 pixels in [-1, 1]


def bin_log_prob(x: Tensor, mean: Tensor, std: float, bins: Bins) -> Tensor:
    """ln of the mass that N(mean, std^2) has in the bin of x: nats, elementwise, float64, exact in the far tails.

    Phi(b) - Phi(a), taken on the side where both are small: ln Phi(b) + ln(1 - Phi(a) / Phi(b)). x and mean have
    equal shapes, which end in (C, H, W) where the bins are by channel.
    """
    a, b = ((edge - mean.double()) / std for edge in bins.edges(x))
    is_right = a + b > 0  # of the mean: mirror it
    low, high = torch.where(is_right, -b, a), torch.where(is_right, -a, b)
    low, high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return high + torch.log(-torch.expm1(low - high))
