"""Students that lead every noised frame to its end by a line: of a grid's levels, and between any two levels."""

import torch
from torch import Tensor, nn

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.diffusion.flow_map import Discretisation
from pipeline.interfaces import NoiseLevel, Video
from pipeline.laboratory.denoisers import ClosedForm
from pipeline.models.denoiser import noise_share


class LineByLevel(ClosedForm):
    """x0_hat = a_n x_t + b_n, a line of its own at every level of a grid but the lowest, which leads to itself.

    Begun from the best linear denoiser of data. float64; it is asked at levels of its grid alone.
    """

    levels: Tensor

    def __init__(self, grid: Discretisation, data: GaussianMixture) -> None:
        super().__init__("full")
        levels = grid.levels(self.spec.schedule)
        self.register_buffer("levels", levels)
        alpha, sigma = (c[:, 0, 0, 0, 0] for c in self.spec.schedule.at(levels[1:, None]))
        variance = data.covariance[0, 0]
        gain = alpha * variance / (alpha.square() * variance + sigma.square())
        self.gain = nn.Parameter(gain)
        self.shift = nn.Parameter((1 - gain * alpha) * data.mean)

    def forward(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
        assert end is None
        index = torch.searchsorted(self.levels, t)
        assert torch.equal(self.levels[index], t), "a student of a line a level knows the levels of its grid alone"
        itself = torch.ones_like(self.gain[:1])
        gain, shift = torch.cat([itself, self.gain]), torch.cat([0 * itself, self.shift])
        return gain[index][..., None, None, None] * x_t + shift[index][..., None, None, None]

    def of_noise(self) -> dict[str, float]:
        """Mean and standard deviation of what it makes of noise of the highest level."""
        return {"m": self.shift[-1].item(), "s": self.gain[-1].abs().item()}


class GaussianFlow(ClosedForm):
    """The probability flow of N(m, s^2), from any level to any other: a line, whose two parameters learn.

    z = x_t / (alpha + sigma), of noise share h = sigma / (alpha + sigma), has the mean (1 - h) m and the variance
    v_h = (1 - h)^2 s^2 + h^2; the flow keeps how many standard deviations it is from the mean. The average velocity
    from h down to r is u = -m + (v_h - v_r) / ((h - r) (sd_h + sd_r) sd_h) (z - (1 - h) m), in which h - r divides
    out: at r = h it is the velocity itself. x0_hat = z - h u. Begun from N(0, 1).
    """

    def __init__(self) -> None:
        super().__init__("full")
        self.m = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.s = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
        at, to = (self.spec.schedule.at(level) for level in (t, torch.zeros_like(t) if end is None else end))
        h, r = (noise_share(c)[:, :, None, None, None] for c in (at, to))
        std, std_end = (((1 - share).square() * self.s.square() + share.square()).sqrt() for share in (h, r))
        slope = (h + r - (2 - h - r) * self.s.square()) / ((std + std_end) * std)
        z = x_t / (at.alpha + at.sigma)
        return z - h * (slope * (z - (1 - h) * self.m) - self.m)

    def of_noise(self) -> dict[str, float]:
        """Mean and standard deviation of what it makes of pure noise."""
        return {"m": self.m.item(), "s": self.s.abs().item()}
