"""Mean flow: the average velocity between two levels, regressed on what its own change says that it must be."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool
from torch import Generator, nn

from pipeline.diffusion.flow_map import first_of_level
from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.interfaces import DenoiseTo, NoiseLevel, Rollout, Scalar, Video
from pipeline.losses.consistency import moved
from pipeline.models.denoiser import Denoiser, noise_share
from pipeline.rules import above, at_least, within
from pipeline.streams import noise_like

STEP = 1e-3  # of the noise share to both sides, over which a derivative is a difference


class Span(NamedTuple):
    """A step of every frame, in noise shares: from `share` down to `end`, the same where a frame does not go."""

    share: NoiseLevel
    end: NoiseLevel
    goes: Bool[torch.Tensor, "B T"]


class Average(NamedTuple):
    """A velocity, and the share that the level in float32 has."""

    velocity: Video
    share: NoiseLevel


@dataclass(frozen=True)
class MeanFlow:
    """|u(z, r, s) - sg[v - (s - r) du/ds]|^2. Mean Flows, arXiv:2505.13447, eq. 6 and 9 to 11, and its defaults.

    z = x_t / (alpha + sigma) goes straight over the noise share s = sigma / (alpha + sigma) under every schedule,
    with velocity v = eps - x_0; u is the average of the flow's velocity from s down to the end r, and v itself at
    r = s. x0_hat = z - s u. The derivative is a central difference, at two calls without gradient: half of what
    forward differentiation costs, which also asks for attention in its slowest form, and finite at both ends.

    What stands in the context of a step must not move with it: of a clip whose frames have levels of their own, one
    level at most goes down at a time.
    """

    needs_target: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = False
    follows_flow: ClassVar[bool] = False
    needs_end_level: ClassVar[bool] = True
    divergence: ClassVar[str] = "none: regression of the average velocity"
    measure: ClassVar[str] = "no divergence, but a regression of the average velocity of the flow, of {denoised}"
    bounds_likelihood: ClassVar[bool] = False
    critic_updates: ClassVar[int] = 0
    mean: float = -0.4  # of logit(s) and logit(r), normal: the larger of two draws is s
    std: float = 1.0
    step_share: float = 0.25  # of frames that go, r < s, as far as one level a clip allows; others match the flow
    power: float = 1.0  # p of the weight (|error|^2 + offset)^-p of a frame, its gradient stopped
    offset: float = 1e-3

    def __post_init__(self) -> None:
        above(0, std=self.std, offset=self.offset)
        within(0, 1, step_share=self.step_share)
        at_least(0, power=self.power)
        within(-math.inf, math.inf, open_low=True, open_high=True, mean=self.mean)

    def critics(self, teacher: Denoiser | None) -> nn.Module:  # noqa: ARG002
        """No network beside the student."""
        return nn.Module()

    def student_loss(
        self,
        rollout: Rollout,
        clips: Video,  # noqa: ARG002
        critics: nn.Module,  # noqa: ARG002
        *,
        schedule: Schedule,
        rng: Generator,
    ) -> Scalar:
        """Frames of data noised to their shares; context stays as it is."""
        assert rollout.target is not None
        x0, counts, span = rollout.target, rollout.counts, self.draw(rollout, rng)
        eps = noise_like(x0, rng)
        end = torch.where(counts > 0, level_of(span.end, schedule).to(rollout.t), rollout.t)

        def average(share: NoiseLevel) -> Average:
            t = torch.where(counts > 0, level_of(share, schedule).to(rollout.t), rollout.t)
            x_t = torch.where(moved(rollout), add_noise(schedule, x0, eps, t), rollout.x_t)
            return average_velocity(x_t, t, end, rollout.denoise, schedule=schedule)

        found = average(span.share)
        with torch.no_grad():
            length = found.share - noise_share(schedule.at(end))
            target = eps - x0 - length[:, :, None, None, None] * slope(average, span)
        error = (found.velocity - target).square().sum(dim=(2, 3, 4)).masked_fill(counts == 0, 0)
        weight = (error.detach() + self.offset) ** -self.power
        return (counts * weight * error).sum() / counts.sum().clamp_min(torch.finfo(counts.dtype).tiny)

    def draw(self, rollout: Rollout, rng: Generator) -> Span:
        """Shares of the frames that count; those that shared a level in the rollout share them again."""
        t, moves = rollout.t, rollout.counts > 0
        first = first_of_level(t)
        logits = self.mean + self.std * torch.randn((2, *t.shape), generator=rng, dtype=torch.float64)
        low, high = logits.sigmoid().to(t.device).sort(0).values
        turns = torch.rand((2, *t.shape), generator=rng, dtype=torch.float64).to(t.device)
        turn = turns[0].gather(1, first).masked_fill(~moves, -1)
        num_levels = (moves & (first == torch.arange(t.shape[1], device=t.device))).sum(1, keepdim=True)
        goes = moves & (turn == turn.amax(1, keepdim=True)) & (turns[1, :, :1] < self.step_share * num_levels)
        share, low = high.gather(1, first), low.gather(1, first)
        return Span(share, torch.where(goes, low, share), goes)


def level_of(share: NoiseLevel, schedule: Schedule) -> NoiseLevel:
    """The level t of a noise share in (0, 1), or the nearest that the schedule has; float64."""
    low, high = schedule.native.range
    return schedule.level((2 * (torch.log1p(-share) - share.log())).clamp(low, high))


def average_velocity(
    x_t: Video, t: NoiseLevel, end: NoiseLevel, denoise: DenoiseTo, *, schedule: Schedule
) -> Average:
    """(z - x0_hat) / s, from the level t down to `end`; any number where t = 0."""
    at = schedule.at(t)
    x0_hat = denoise(x_t, t, end)
    return Average((x_t - (at.alpha + at.sigma) * x0_hat) / at.sigma.where(at.sigma > 0, 1.0), noise_share(at))


def slope(average: Callable[[NoiseLevel], Average], span: Span) -> Video:
    """du/ds of the frames that go, along their paths, the others and all ends held; 0 of the others."""
    share, end, goes = span
    up = torch.minimum(share + STEP, (1 + share) / 2)
    down = torch.maximum(share - STEP, end)
    upper, lower = (average(torch.where(goes, to, share)) for to in (up, down))
    width = (upper.share - lower.share).where(goes, 1.0)[:, :, None, None, None]
    return (upper.velocity - lower.velocity).where(goes[:, :, None, None, None], 0.0) / width
