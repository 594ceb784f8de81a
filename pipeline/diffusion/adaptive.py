"""The adaptive schedule: levels drawn as often as the loss at them is large, frame by frame.

Importance sampling over the log-SNR: the objective stays what it is, the variance of its estimate falls.
Kingma & Gao, arXiv:2303.00848, section 4.3.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.log_snr import Coefficients, LogSnr
from pipeline.diffusion.schedule import Schedule
from pipeline.diffusion.weighting import ByFrame, Weighting
from pipeline.interfaces import NoiseLevel, Video
from pipeline.rules import above, at_least, within


@dataclass(frozen=True)
class AdaptiveSpec:
    """Bins of equal width in the log-SNR; the loss outside [low, high] is left out.

    decay: of the running mean of the error in each bin, an update a step. floor: least density of a bin, as a
    share of the mean one.
    """

    num_bins: int = 100
    low: float = -10.0
    high: float = 10.0
    decay: float = 0.99
    floor: float = 1e-3

    def __post_init__(self) -> None:
        at_least(2, num_bins=self.num_bins)
        above(self.low, high=self.high)
        within(0, 1, open_high=True, decay=self.decay)
        within(0, 1, open_low=True, floor=self.floor)


class AdaptiveSchedule:
    """The schedule of a network, under which levels are drawn from a learnt density: one table a frame index.

    error: running mean of E|eps - eps_hat|^2 a dimension, (T, bins); at first that of the best denoiser
    of white noise.
    """

    def __init__(self, spec: AdaptiveSpec, native: Schedule, weighting: Weighting, num_frames: int) -> None:
        """Raises ValueError when the native schedule does not reach all of [low, high]."""
        low, high = native.range
        if not (low <= spec.low and spec.high <= high):
            raise ValueError(
                f"[low, high] of an adaptive schedule must lie in the range of the schedule that it adapts: "
                f"[{spec.low}, {spec.high}] and [{low:.4f}, {high:.4f}] of {type(native).__name__}"
            )
        self.spec, self.native, self.weighting = spec, native, weighting
        self.family, self.range = native.family, (spec.low, spec.high)
        self.edges = torch.linspace(spec.low, spec.high, spec.num_bins + 1, dtype=torch.float64)
        self.error = torch.sigmoid((self.edges[1:] + self.edges[:-1]) / 2).expand(num_frames, -1).clone()
        self.width = (spec.high - spec.low) / spec.num_bins

    def log_snr(self, t: Tensor) -> LogSnr:
        return self.native.log_snr(t)

    def level(self, log_snr: LogSnr) -> Tensor:
        return self.native.level(log_snr)

    def at(self, t: NoiseLevel) -> Coefficients:
        return self.native.at(t)

    def draw(self, u: NoiseLevel) -> NoiseLevel:
        """Levels of the native schedule, whose log-SNRs have this density, from uniform ones; 0 and 1 stay."""
        shares = self._shares()
        total = torch.cat([torch.zeros(len(shares), 1).double(), shares.cumsum(1)], 1)
        wanted = (1 - u.double()).T.contiguous()  # high t is low log-SNR
        right = torch.searchsorted(total, wanted).clamp(1, self.spec.num_bins)
        inside = (wanted - total.gather(1, right - 1)) / shares.gather(1, right - 1)
        log_snr = (self.edges[right - 1] + inside.clamp(0, 1) * self.width).T
        return torch.where((u > 0) & (u < 1), self.native.level(log_snr).to(u), u)

    def density(self, log_snr: LogSnr) -> ByFrame:
        """Of the log-SNRs (B, T) that `draw` gives, frame by frame; 0 outside the bins."""
        index = self._bin(log_snr)
        inside = (log_snr >= self.spec.low) & (log_snr <= self.spec.high)
        return torch.where(inside, self._shares().T.gather(0, index) / self.width, 0.0)

    def observe(self, t: NoiseLevel, x0_hat: Video, x0: Video, counts: NoiseLevel) -> None:
        """Move the running means towards the errors of one batch; a bin that no counted frame fell into stays."""
        log_snr = self.log_snr(torch.where(t > 0, t, 0.5))
        index = self._bin(log_snr)
        error = (x0_hat - x0).detach().double().square().mean(dim=(2, 3, 4)) * torch.exp(log_snr)
        counted = (counts > 0).double()
        number = torch.zeros_like(self.error.T).scatter_add_(0, index, counted).T
        total = torch.zeros_like(self.error.T).scatter_add_(0, index, (error * counted).nan_to_num()).T
        seen = number > 0
        mean = total[seen] / number[seen]
        self.error[seen] += (1 - self.spec.decay) * (mean - self.error[seen])

    def _bin(self, log_snr: LogSnr) -> Tensor:
        return ((log_snr.double() - self.spec.low) / self.width).long().clamp(0, self.spec.num_bins - 1)

    def _shares(self) -> Float[Tensor, "T bins"]:
        """Probability of every bin: in proportion to w times the error, and not below the floor."""
        centres = (self.edges[1:] + self.edges[:-1]) / 2
        weight = self.weighting.weight(centres[:, None].expand(-1, len(self.error)), self.native).T
        wanted = weight * self.error
        wanted = wanted + self.spec.floor * wanted.mean(1, keepdim=True)
        return wanted / wanted.sum(1, keepdim=True)
