"""The flow map: steps along the probability flow as long as one likes, and the grid on which a student learns them.

The probability flow is dy/ds = (y - D(x, t)) / s of y = x / alpha over s = sigma / alpha, every frame at a level of
its own: a step may take frames from different levels, and leave some where they are.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from pipeline.diffusion.schedule import FlowMatching, Schedule
from pipeline.diffusion.trajectory import PURE_NOISE, Euler, Heun, Step, ends
from pipeline.interfaces import Denoise, NoiseLevel, Video
from pipeline.rules import at_least, one_of, within

SOLVERS: dict[str, Step] = {"euler": Euler(), "heun": Heun()}
Moves = Bool[Tensor, "B T"]  # frames that a step takes along; the others are context, and stay at their level

# Steps of the grid after a share of the run, from the first and the last number of them.
CURRICULA: dict[str, Callable[[float, int, int], int]] = {
    "constant": lambda progress, first, last: last,  # noqa: ARG005
    # arXiv:2303.01469, appendix C
    "square_root": lambda progress, first, last: math.ceil(
        math.sqrt((1 - progress) * (first + 1) ** 2 + progress * (last + 1) ** 2) - 1
    ),
    # arXiv:2310.14189, eq. 9: improved consistency training
    "doubling": lambda progress, first, last: min(
        first * 2 ** math.floor(progress * (math.ceil(math.log2(last / first)) + 1)), last
    ),
}


class Pair(NamedTuple):
    """Two neighbours of the grid, frame by frame, and the level to which both must lead."""

    t: NoiseLevel
    t_next: NoiseLevel
    boundary: NoiseLevel


@dataclass(frozen=True)
class Discretisation:
    """The levels between which a consistency model is compared with itself.

    spacing: its log-SNRs at u = 0, 1 / (N - 1), ..., 1 are the levels. visits: how often they are drawn, as a
    schedule would; None: all alike. EDM's levels with visits EdmTraining(mean=2.2, std=4), ln sigma ~ N(-1.1, 2^2),
    are those of improved consistency training, arXiv:2310.14189, table 1. segments: of a multistep consistency
    model, arXiv:2403.06807, each with its lowest level as boundary; the Euler steps of a sampler between these
    boundaries are then what it does.
    """

    num_levels: int = 41  # at the end of the run
    curriculum: str = "constant"
    first_num_levels: int | None = None  # where a curriculum begins
    spacing: Schedule = field(default_factory=FlowMatching)
    visits: Schedule | None = None
    segments: int = 1

    def __post_init__(self) -> None:
        at_least(2, num_levels=self.num_levels)
        one_of(CURRICULA, curriculum=self.curriculum)
        at_least(1, segments=self.segments)
        if (self.curriculum == "constant") != (self.first_num_levels is None):
            raise ValueError(
                f"first_num_levels must be given where the curriculum is not constant, and only there: "
                f"curriculum={self.curriculum}, first_num_levels={self.first_num_levels}"
            )
        if self.first_num_levels is not None:
            within(2, self.num_levels, first_num_levels=self.first_num_levels)
        steps = self.at_progress(0.0).num_levels - 1
        if self.segments > steps:
            raise ValueError(
                f"segments must be at most the steps of the grid: segments={self.segments}, {steps} steps"
            )
        self.shares()  # visits must reach all of the spacing

    def at_progress(self, progress: float) -> "Discretisation":
        """The grid after this share of a run, in [0, 1]."""
        if self.first_num_levels is None:
            return self
        steps = CURRICULA[self.curriculum](progress, self.first_num_levels - 1, self.num_levels - 1)
        return dataclasses.replace(self, num_levels=steps + 1, curriculum="constant", first_num_levels=None)

    def levels(self, schedule: Schedule) -> Float[Tensor, " N"]:
        """Levels of a network trained on `schedule`, rising, float64. Its range cuts off what is beyond.

        Raises:
            ValueError: two levels that float32 cannot tell apart.
        """
        log_snr = self._log_snr()
        low, high = schedule.native.range
        t = schedule.level(log_snr.clamp(low, high))
        t = t.masked_fill(log_snr <= low, 1.0).masked_fill(log_snr >= high, 0.0)
        if (t.float().diff() <= 0).any():
            raise ValueError(
                f"the levels of a grid must rise: num_levels={self.num_levels} of {self.spacing} on {schedule}"
            )
        return t

    def shares(self) -> Float[Tensor, " steps"]:
        """How often every step of the grid is drawn, from the lowest on."""
        if self.visits is None:
            return torch.full((self.num_levels - 1,), 1 / (self.num_levels - 1), dtype=torch.float64)
        mass = self.visits.level(self._log_snr()).diff()
        return mass / mass.sum()

    def boundaries(self) -> Tensor:
        """The index of the lowest level in the segment of every step, (N-1,)."""
        steps, segments = self.num_levels - 1, self.segments
        segment = torch.arange(steps) * segments // steps
        return -(-segment * steps // segments)

    def draw(self, t: NoiseLevel, moves: Moves, *, schedule: Schedule, rng: Generator) -> Pair:
        """Levels for the frames that move; those that shared one in `t` share one again, the others keep theirs."""
        index = draw_steps(self.shares(), t.shape, rng).to(t.device).gather(1, first_of_level(t))
        levels = self.levels(schedule).to(t)
        lowest = self.boundaries().to(t.device)[index]
        return Pair(*(torch.where(moves, levels[i], t) for i in (index + 1, index, lowest)))

    def _log_snr(self) -> Float[Tensor, " N"]:
        return self.spacing.log_snr(torch.linspace(0, 1, self.num_levels, dtype=torch.float64))


def first_of_level(t: NoiseLevel) -> Int[Tensor, "B T"]:
    """Of every frame, the first frame in its clip that has the same level."""
    return (t[:, :, None] == t[:, None, :]).int().argmax(2)


def draw_steps(shares: Float[Tensor, " steps"], shape: torch.Size, rng: Generator) -> Tensor:
    """Steps of a grid, as often as their shares say."""
    return torch.multinomial(shares.expand(shape[0], -1), shape[1], replacement=True, generator=rng)


def lead_to(
    schedule: Schedule, x_t: Video, t: NoiseLevel, boundary: NoiseLevel, denoise: Denoise, rng: Generator
) -> Video:
    """The consistency function: y + (s_b - s) / s (y - D(x, t)), at the scale of the boundary.

    Euler's step all the way, and so x_t itself at t = boundary, whatever the weights of D; with the boundary 0,
    D(x, t). arXiv:2403.06807, section 3: of the forms that keep to the boundary, the one that has segments.
    """
    return SOLVERS["euler"](schedule, x_t, t, boundary, denoise, rng)


def clean_end(
    schedule: Schedule,
    x_t: Video,
    t: NoiseLevel,
    moves: Moves,
    denoise: Denoise,
    *,
    solver: str,
    num_steps: int,
    rng: Generator,
) -> Video:
    """Down the flow to level 0, in steps of t / num_steps, for the frames that move."""
    for step in range(num_steps):
        at, to = (torch.where(moves, t * (1 - k / num_steps), t) for k in (step, step + 1))
        x_t = SOLVERS[solver](schedule, x_t, at, to, denoise, rng)
    return x_t


def noisy_end(
    schedule: Schedule,
    x0: Video,
    t: NoiseLevel,
    x_t: Video,
    moves: Moves,
    denoise: Denoise,
    *,
    solver: str,
    num_steps: int,
) -> Video:
    """Up the flow from level 0 to t, in steps of t / num_steps, for the frames that move.

    dy/ds = eps_hat, whose Euler steps are DDIM inversion, arXiv:2010.02502, eq. 14 run backwards. eps_hat is 0 at
    level 0, where no network is asked; Heun's step to pure noise is Euler's. x_t: where the frames that stay are.
    """
    moved = moves[:, :, None, None, None]

    def level(step: int) -> NoiseLevel:
        return torch.where(moves, t * (step / num_steps), t)

    def eps_hat(x: Video, step: int) -> Video:
        at = schedule.at(level(step))
        return (x - at.alpha * denoise(x, level(step))) / at.sigma.where(moved, 1.0)

    x = torch.where(moved, x0, x_t)
    for step in range(num_steps):
        between = ends(schedule, level(step + 1), level(step))  # the step that leads down again
        (upper, lower), kept = between[:2], between.noise_left
        eps = eps_hat(x, step) if step > 0 else torch.zeros_like(x)
        x_next = upper.alpha / lower.alpha * x + upper.sigma * (1 - kept) * eps
        corrected = moved & (upper.sigma < PURE_NOISE * upper.alpha)
        if solver == "heun" and corrected.any():
            slope = (eps_hat(x_next.where(moved, x), step + 1) - eps) / 2
            x_next = torch.where(corrected, x_next + upper.sigma * (1 - kept) * slope, x_next)
        x = torch.where(moved, x_next, x)
    return x
