"""Distribution matching distillation: the score of data against the score of the student's frames."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Generator, Tensor

from pipeline.diffusion.log_snr import Coefficients
from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.diffusion.weighting import PredictionL2, Weighting
from pipeline.interfaces import NoiseLevel, Rollout, Scalar, Video
from pipeline.losses.kd import Kd
from pipeline.losses.scores import (
    CLIP,
    FRAME,
    Guided,
    Scores,
    check_score_levels,
    dmd_gradient,
    draw_score_levels,
    fake_score_loss,
    pseudo_target_loss,
)
from pipeline.models.denoiser import Denoiser
from pipeline.rules import at_least, one_of, within
from pipeline.streams import noise_like

SPACES: dict[str, Callable[[Coefficients], Tensor | float]] = {  # on a difference of clean frames
    "x0": lambda at: 1.0,  # noqa: ARG005 - E_t (sigma / alpha)^2 KL_t
    "score": lambda at: (at.alpha / at.sigma) ** 2,  # alpha times the difference of scores: E_t KL_t
}


@dataclass(frozen=True)
class Dmd:
    """Reverse KL between the student's frames and data, averaged over noise levels. arXiv:2311.18828, eq. 7.

    Only the space `score` weighs all levels alike. Where the frames of a clip have levels of their own, the space
    `x0` scales each by another number, and what it descends is no divergence. Nor is it with guidance: the guided
    scores of data are those of no law. Self-Forcing's guidance of 3 is 4 here, which is 1 + w of arXiv:2207.12598.
    """

    needs_target: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    follows_flow: ClassVar[bool] = False
    needs_end_level: ClassVar[bool] = False
    divergence: ClassVar[str] = "reverse KL, averaged over noise"
    bounds_likelihood: ClassVar[bool] = False
    critic_updates: int = 5  # of the fake score for each student update, each on a fresh rollout
    score_level: str = "shared"  # one level a clip, or one a frame
    level_min: float = 0.02  # of the score's noise level t, before the schedule's shift
    level_max: float = 0.98
    weighting: Weighting = field(default_factory=PredictionL2)  # of the fake score's denoising loss
    space: str = "x0"  # in which the two scores are compared
    normaliser: bool = True  # divide by the teacher's mean error: of a clip, or of a frame that has its own weight
    guidance: float = 1.0  # s of u + s (c - u), the score given the class, c, and without, u; 1: off
    entropy_weight: float = 0.0  # beta of KL + beta H: at 1 only the cross-entropy is left, and frames collapse
    regression_weight: float = 0.0  # of the regression on the teacher's flow beside it: eq. 9, and 0.25 there
    regression: Kd = field(default_factory=Kd)

    def __post_init__(self) -> None:
        at_least(1, critic_updates=self.critic_updates)
        check_score_levels(self.score_level, self.level_min, self.level_max)
        one_of(SPACES, space=self.space)
        within(0, math.inf, open_high=True, guidance=self.guidance)
        within(-math.inf, 1, open_low=True, entropy_weight=self.entropy_weight)
        at_least(0, regression_weight=self.regression_weight)

    @property
    def measure(self) -> str:
        """Both weights decide, whether the frames of a clip are weighed alike, and guidance."""
        what = f"reverse KL and {self.entropy_weight:g} times the entropy"
        what = {0.0: "reverse KL", 1.0: "cross-entropy with data"}.get(self.entropy_weight, what)
        bent = self.guidance != 1 or (self.space == "x0" and self.score_level == "independent")
        guided = "" if self.guidance == 1 else f", the scores of data guided by {self.guidance:g}"
        weight = self.regression_weight
        beside = f", and {weight:g} times a regression of the ends of the teacher's flow" if weight else ""
        return f"{'nearly the ' if bent else ''}{what}, averaged over noise, of {{judged}}{guided}{beside}"

    def critics(self, teacher: Denoiser | None) -> Scores:
        """Both scores; only the fake one learns."""
        assert teacher is not None
        return Scores(teacher)

    def student_loss(
        self,
        rollout: Rollout,
        clips: Video,
        critics: Scores,
        *,
        schedule: Schedule,
        rng: Generator,
    ) -> Scalar:
        """One whose gradient at x0_hat is `gradient` / numel, arXiv:2405.14867, section 3; and the regression."""
        x0_hat = rollout.x0_hat
        with torch.no_grad():
            t = self.score_levels(x0_hat, rng)
            x_t = add_noise(schedule, x0_hat, noise_like(x0_hat, rng), t)
            gradient = self.gradient(rollout, critics, x_t, t, schedule=schedule)
        loss = pseudo_target_loss(x0_hat, gradient)
        if self.regression_weight > 0:
            at = {"schedule": schedule, "rng": rng}
            loss = loss + self.regression_weight * self.regression.student_loss(rollout, clips, critics.real, **at)
        return loss

    def gradient(
        self, rollout: Rollout, critics: Scores, x_t: Video, t: NoiseLevel, *, schedule: Schedule
    ) -> Video:
        """Of the divergence at the student's frames, which were noised to x_t."""
        weight = SPACES[self.space](schedule.at(t))
        by_frame = self.space == "score" and self.score_level == "independent"
        real = critics.real if self.guidance == 1 else Guided(critics.real, self.guidance)
        fake_x0, real_x0 = (rollout.judge(score, x_t, t) for score in (critics.fake, real))
        over = (FRAME if by_frame else CLIP) if self.normaliser else ()
        return weight * dmd_gradient(
            fake_x0, real_x0, rollout.x0_hat, entropy_weight=self.entropy_weight, normalised_over=over
        )

    def critic_loss(
        self,
        rollout: Rollout,
        clips: Video,  # noqa: ARG002
        critics: Scores,
        *,
        schedule: Schedule,
        rng: Generator,
    ) -> Scalar:
        """The denoising loss of the fake score on the student's frames."""
        t = self.score_levels(rollout.x0_hat, rng)
        return fake_score_loss(rollout, critics, t, schedule=schedule, weighting=self.weighting, rng=rng)

    def score_levels(self, x0: Video, rng: Generator) -> NoiseLevel:
        """Noise levels at which both scores are asked."""
        return draw_score_levels(
            x0, score_level=self.score_level, level_min=self.level_min, level_max=self.level_max, rng=rng
        )
