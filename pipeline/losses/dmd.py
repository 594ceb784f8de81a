"""Distribution matching distillation: the score of data against the score of the student's frames."""

import copy
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, nn

from pipeline.diffusion.denoising import denoising_loss
from pipeline.diffusion.noise_levels import independent_levels, shared_levels
from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.diffusion.weighting import PredictionL2, Weighting
from pipeline.interfaces import NoiseLevel, Rollout, Scalar, Video
from pipeline.models.denoiser import Denoiser
from pipeline.rules import at_least, one_of
from pipeline.streams import noise_like

MIN_SCALE = 1e-6
SCORE_LEVELS = {"shared": shared_levels, "independent": independent_levels}


class Scores(nn.Module):
    """The frozen score of data (the teacher), and the trained score of the student's frames, begun from it."""

    def __init__(self, teacher: Denoiser) -> None:
        super().__init__()
        self.real = copy.deepcopy(teacher).eval().requires_grad_(False)
        self.fake = copy.deepcopy(teacher).train().requires_grad_(True)


@dataclass(frozen=True)
class Dmd:
    """Reverse KL between the student's frames and data, averaged over noise levels. arXiv:2311.18828, eq. 7."""

    needs_target: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    divergence: ClassVar[str] = "reverse KL, averaged over noise"
    measure: ClassVar[str] = "reverse KL, averaged over noise, of {judged}"
    bounds_likelihood: ClassVar[bool] = False
    critic_updates: int = 5  # of the fake score for each student update, each on a fresh rollout
    score_level: str = "shared"  # one level a clip, or one a frame
    level_min: float = 0.02  # of the score's noise level t, before the schedule's shift
    level_max: float = 0.98
    weighting: Weighting = field(default_factory=PredictionL2)  # of the fake score's denoising loss

    def __post_init__(self) -> None:
        at_least(1, critic_updates=self.critic_updates)
        one_of(SCORE_LEVELS, score_level=self.score_level)
        if not 0 < self.level_min < self.level_max < 1:
            raise ValueError(f"0 < level_min < level_max < 1 must hold, got {self.level_min} and {self.level_max}")

    def critics(self, teacher: Denoiser | None) -> Scores:
        """Both scores; only the fake one learns."""
        assert teacher is not None
        return Scores(teacher)

    def student_loss(
        self,
        rollout: Rollout,
        clips: Video,  # noqa: ARG002 - data-free
        critics: Scores,
        *,
        schedule: Schedule,
        rng: Generator,
    ) -> Scalar:
        """A loss whose gradient at x0_hat is dmd_gradient / numel. arXiv:2405.14867, section 3."""
        x0_hat = rollout.x0_hat
        with torch.no_grad():
            t = self.score_levels(x0_hat, rng)
            x_t = add_noise(schedule, x0_hat, noise_like(x0_hat, rng), t)
            gradient = dmd_gradient(
                rollout.judge(critics.fake, x_t, t), rollout.judge(critics.real, x_t, t), x0_hat
            )
        return pseudo_target_loss(x0_hat, gradient)

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
        x0 = rollout.x0_hat.detach()
        t = self.score_levels(x0, rng)
        x_t = add_noise(schedule, x0, noise_like(x0, rng), t)
        return denoising_loss(
            rollout.judge(critics.fake, x_t, t),
            x0,
            t,
            schedule=schedule,
            weighting=self.weighting,
            counts=torch.ones_like(t),
        )

    def score_levels(self, x0: Video, rng: Generator) -> NoiseLevel:
        """Noise levels at which both scores are asked."""
        draw = SCORE_LEVELS[self.score_level]
        return draw(*x0.shape[:2], low=self.level_min, high=self.level_max, rng=rng).to(x0)


def dmd_gradient(fake_x0: Video, real_x0: Video, x0_hat: Video) -> Video:
    """Gradient of the reverse KL at the student's frames; descending it moves fake towards real.

    (fake_x0 - real_x0) / mean|x0_hat - real_x0|, the mean per clip. Dimensionless.
    DMD, arXiv:2311.18828, eq. 7 (direction), eq. 8 (normaliser).
    """
    scale = (x0_hat - real_x0).abs().mean(dim=(1, 2, 3, 4), keepdim=True)
    return (fake_x0 - real_x0) / scale.clamp_min(MIN_SCALE)


def pseudo_target_loss(x0_hat: Video, gradient: Video) -> Scalar:
    """1/2 mean|x0_hat - sg[x0_hat - gradient]|^2, whose gradient at x0_hat is gradient / numel."""
    target = (x0_hat - gradient).detach()
    return 0.5 * F.mse_loss(x0_hat, target)
