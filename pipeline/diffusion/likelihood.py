"""The variational bound on the negative log-likelihood of a clip, along any path over the cube of noise levels.

Each frame has a level in {0..K}: 0 is the data, K almost pure noise. A path is a table of integer rows from
(K, ..., K) to (0, ..., 0). From row to row the frames that move go down by one level, and one denoiser call at the
levels of the row pays for them all, in nats a clip:

    NLL <= sum_f KL(q(z_f at level K | x_f) || N(0, I))                                             prior
         + sum over moves and over the frames that move, at k >= 2, of                              transitions
           1/2 expm1(l_{k-1} - l_k) |eps - eps_hat|^2 = 1/2 (e^{l_{k-1}} - e^{l_k}) |x - x_hat|^2
         + sum_f -ln P(bin of x_f | N(x_hat_f, s^2)), at the row where f moves from 1 to 0          reconstruction

with l the log-SNR, |eps - eps_hat| = (alpha / sigma) |x - x_hat|. It holds for any denoiser on any path: one under
a causal mask, which does not see later frames, only makes it looser. The denoiser of one joint density gives the
same on every path as K grows; where the paths differ, no one density stands behind the network.
Variational Diffusion Models, arXiv:2107.00630, section 4; over frames: arXiv:2407.01392, theorem 3.1.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from pipeline.diffusion.cube import pyramid_rows
from pipeline.diffusion.reconstruction import Bins, bin_log_prob
from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.interfaces import Denoise, Video
from pipeline.rules import above, at_least
from pipeline.streams import noise_like

Path = Int[Tensor, "M F"]  # rows of levels, from all K to all 0
PerClip = Float[Tensor, " B"]


class Levels(NamedTuple):
    """Of the levels 1..K, float64: t as a float32 network is told it, and the log-SNR there, strictly falling."""

    t: Float[Tensor, " K"]
    log_snr: Float[Tensor, " K"]

    @property
    def first_std(self) -> float:
        """sigma / alpha at level 1: what a frame of that level says of the data by itself.

        The std of the last step for want of a better one: that of the true posterior where the data are much wider,
        and it needs no fit, so no clip is scored by what was tuned on it.
        """
        return math.exp(-self.log_snr[0].item() / 2)


def uniform_levels(schedule: Schedule, num_levels: int) -> Levels:
    """t = k / K.

    Raises:
        ValueError: the schedule has no signal at all at t = 1, so that the step from there is without end.
    """
    at_least(2, num_levels=num_levels)
    if not math.isfinite(schedule.range[0]):
        raise ValueError(
            f"log_snr must be finite at t = 1 for levels t = k / K (log_snr_levels cuts it off): got "
            f"{schedule.range[0]} under {schedule}"
        )
    return _levels(schedule, torch.arange(1, num_levels + 1, dtype=torch.float64) / num_levels)


def log_snr_levels(schedule: Schedule, num_levels: int, *, log_snr_max: float, log_snr_min: float) -> Levels:
    """Evenly spaced log-SNRs from log_snr_max at level 1 to log_snr_min at level K, at the schedule's t.

    A schedule that is a table gives its nearest entries, each once, so there may be fewer levels.

    Raises:
        ValueError: the schedule does not reach these log-SNRs, or not in float32, or fewer than 2 of its levels
            lie between them.
    """
    at_least(2, num_levels=num_levels)
    above(log_snr_min, log_snr_max=log_snr_max)
    evenly = torch.linspace(log_snr_max, log_snr_min, num_levels, dtype=torch.float64)
    return _levels(schedule, torch.unique(schedule.level(evenly).float()))


def _levels(schedule: Schedule, t: Tensor) -> Levels:
    t = t.float().double()
    log_snr = schedule.log_snr(t)
    if len(t) < 2 or not (log_snr.isfinite().all() and (log_snr.diff() < 0).all()):
        raise ValueError(
            f"log_snr must be finite and fall from each of at least 2 levels to the next, got {len(t)} levels, "
            f"from {log_snr.max():.4f} to {log_snr.min():.4f}, under {schedule}"
        )
    return Levels(t, log_snr)


@dataclass(frozen=True)
class Bound:
    """The three parts, in nats, of each clip."""

    prior: PerClip
    transitions: PerClip
    reconstruction: PerClip

    @property
    def nats(self) -> PerClip:
        return self.prior + self.transitions + self.reconstruction


@dataclass(frozen=True)
class Chain:
    """The noise levels between data and noise, and the Gaussian and the bins of the last step."""

    schedule: Schedule
    levels: Levels
    reconstruction_std: float
    bins: Bins

    def __post_init__(self) -> None:
        above(0, reconstruction_std=self.reconstruction_std)

    def path(self, num_frames: int, lag: Fraction | int) -> Path:
        """Each frame `lag` levels behind the one before it: 0 is lockstep, the number of levels teacher forcing."""
        return torch.tensor(pyramid_rows(num_frames, len(self.levels.t), lag))

    def along(self, denoise: Denoise, x0: Video, rows: Path, rng: Generator) -> Bound:
        """The bound with every move of the path, each with noise of its own. One denoiser call a move."""
        transitions, reconstruction = torch.zeros(2, len(x0), dtype=torch.float64, device=x0.device)
        for move in range(len(rows) - 1):
            paid = self._move(denoise, x0, rows, torch.full((len(x0),), move), rng)
            transitions, reconstruction = transitions + paid[0], reconstruction + paid[1]
        return Bound(self.prior(x0), transitions, reconstruction)

    def estimate(self, denoise: Denoise, x0: Video, rows: Path, *, num_draws: int, rng: Generator) -> Bound:
        """An unbiased estimate of `along`, independent from clip to clip: num_draws moves of each stand for all.

        One is drawn evenly from the moves that reconstruct a frame; the others from the rest of the path, one from
        each of so many parts of equal cost. The cost is that of independent standard normal values, so that moves
        of almost no signal, which cost almost nothing, are drawn as rarely; a tenth of it is the same for every
        move, for networks that err where they should not.
        """
        at_least(2, num_draws=num_draws)
        reconstructs = (self._moving(rows) & (rows[:-1] == 1)).any(1)
        log_snr = self.levels.log_snr
        costs = _from_zero(transition_weights(log_snr) * torch.sigmoid(-log_snr))[rows[:-1]] * self._moving(rows)
        transitions, reconstruction = torch.zeros(2, len(x0), dtype=torch.float64, device=x0.device)
        evenly, by_cost = reconstructs.double(), costs.sum(1)
        for kind, cost, count in ((reconstructs, evenly, 1), (~reconstructs, by_cost, num_draws - 1)):
            moves = kind.nonzero()[:, 0]
            shares = 0.9 * cost[kind] / cost[kind].sum() + 0.1 / len(moves)
            for part in range(count):
                place = (part + torch.rand(len(x0), generator=rng, dtype=torch.float64)) / count
                drawn = torch.searchsorted(shares.cumsum(0), place).clamp_max(len(moves) - 1)
                paid = self._move(denoise, x0, rows, moves[drawn], rng)
                scale = 1 / (count * shares[drawn]).to(x0.device)
                transitions, reconstruction = transitions + scale * paid[0], reconstruction + scale * paid[1]
        return Bound(self.prior(x0), transitions, reconstruction)

    def prior(self, x0: Video) -> PerClip:
        """KL of the frames at level K, scaled to unit variance of data and noise, from standard noise."""
        log_snr = self.levels.log_snr[-1].to(x0.device)
        mean = torch.sigmoid(log_snr).sqrt() * x0.double()
        variance = torch.sigmoid(-log_snr)
        return normal_kl(mean, variance, torch.zeros_like(mean), torch.ones_like(variance)).flatten(1).sum(1)

    def _move(
        self, denoise: Denoise, x0: Video, rows: Path, moves: Int[Tensor, " B"], rng: Generator
    ) -> tuple[PerClip, PerClip]:
        """Transitions and reconstruction of one move of each clip."""
        level, moving = rows[moves].to(x0.device), self._moving(rows)[moves].to(x0.device)
        t = _from_zero(self.levels.t).to(x0)[level]
        x0_hat = denoise(add_noise(self.schedule, x0, noise_like(x0, rng), t), t)
        weight = _from_zero(transition_weights(self.levels.log_snr)).to(x0.device)[level]
        error = (x0_hat.double() - x0.double()).square().sum((2, 3, 4))
        transitions = torch.where(moving, weight * error, 0.0).sum(1)
        last = moving & (level == 1)
        reconstruction = torch.zeros_like(error)
        reconstruction[last] = -bin_log_prob(x0[last], x0_hat[last], self.reconstruction_std, self.bins).sum(
            (1, 2, 3)
        )
        return transitions, reconstruction.sum(1)

    @staticmethod
    def _moving(rows: Path) -> Bool[Tensor, "M-1 F"]:
        return rows[:-1] > rows[1:]


def transition_weights(log_snr: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
    """Nats for each unit of |x0 - x0_hat|^2 in a move down from level 1..K; 0 from level 1, which reconstructs.

    1/2 (e^{l_{k-1}} - e^{l_k}): the KL of the true Gaussian of level k - 1 from the predicted one, which has its
    variance. arXiv:2107.00630, section 4.
    """
    snr = log_snr.exp()
    return torch.cat([snr.new_zeros(1), (snr[:-1] - snr[1:]) / 2])


def normal_kl(mean: Tensor, variance: Tensor, other_mean: Tensor, other_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(other_mean, other_variance)) in nats, elementwise."""
    ratio = variance / other_variance
    return (ratio - 1 - ratio.log() + (mean - other_mean).square() / other_variance) / 2


def bits_per_dim(nats: Tensor, num_dims: int) -> Tensor:
    """nats / (D ln 2)."""
    return nats / (num_dims * math.log(2))


def _from_zero(values: Float[Tensor, " K"]) -> Float[Tensor, " K+1"]:
    """Of levels 0..K: t and the weight of the data are 0."""
    return torch.cat([values.new_zeros(1), values])
