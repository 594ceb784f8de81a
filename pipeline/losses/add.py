"""Adversarial diffusion distillation: towards the teacher's answer to noised frames, against a discriminator."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Generator, nn

from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.interfaces import NoiseLevel, Rollout, Scalar, Video
from pipeline.losses.dmd import SPACES
from pipeline.losses.gan import Gan
from pipeline.losses.scores import check_score_levels, draw_score_levels, real_score
from pipeline.models.denoiser import Denoiser
from pipeline.models.discriminator import Discriminator
from pipeline.rules import above, one_of
from pipeline.streams import noise_like

LEVEL_WEIGHTS = {  # c of a squared distance, at every level
    "alpha": lambda at: at.alpha,  # the paper's exponential weighting
    "score": SPACES["score"],  # that of score distillation
    "uniform": SPACES["x0"],
}


class AddCritics(nn.Module):
    """The frozen score of data (the teacher), and the adversary's own network, which learns."""

    def __init__(self, teacher: Denoiser, adversary: Discriminator) -> None:
        super().__init__()
        self.real = real_score(teacher)
        self.adversary = adversary


@dataclass(frozen=True)
class Add:
    """c(t) |x0_hat - sg[D_real(x_t, t)]|^2 and an adversarial term. ADD, arXiv:2311.17042, section 3.

    The target is stopped, so that the first term descends the cross-entropy between the student's noised frames and
    data, and no divergence: alone it collapses onto modes. What spread there is, the adversary keeps.
    """

    needs_target: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    follows_flow: ClassVar[bool] = False
    needs_end_level: ClassVar[bool] = False
    divergence: ClassVar[str] = "score distillation, and that of its adversary"
    bounds_likelihood: ClassVar[bool] = False
    score_level: str = "shared"  # one level a clip, or one a frame
    level_min: float = 0.02  # of the score's noise level t, before the schedule's shift
    level_max: float = 0.98
    level_weight: str = "alpha"  # c(t)
    gan_weight: float = 0.4  # the paper has 2.5 on the other term
    gan: Gan = field(default_factory=Gan)

    def __post_init__(self) -> None:
        check_score_levels(self.score_level, self.level_min, self.level_max)
        one_of(LEVEL_WEIGHTS, level_weight=self.level_weight)
        above(0, gan_weight=self.gan_weight)

    @property
    def critic_updates(self) -> int:
        """Those of the adversary, the only network beside the student that learns."""
        return self.gan.critic_updates

    @property
    def measure(self) -> str:
        """The adversary's objective is a part of it."""
        return f"cross-entropy with data, averaged over noise, and {self.gan_weight:g} times the {self.gan.measure}"

    def critics(self, teacher: Denoiser | None) -> AddCritics:
        """The teacher, and the adversary's own network."""
        assert teacher is not None
        return AddCritics(teacher, self.gan.critics(teacher))

    def student_loss(
        self, rollout: Rollout, clips: Video, critics: AddCritics, *, schedule: Schedule, rng: Generator
    ) -> Scalar:
        """Both terms, at noise of their own."""
        x0_hat = rollout.x0_hat
        t = draw_score_levels(
            x0_hat, score_level=self.score_level, level_min=self.level_min, level_max=self.level_max, rng=rng
        )
        x_t = add_noise(schedule, x0_hat.detach(), noise_like(x0_hat, rng), t)
        distance = self.distances(rollout, critics, x_t, t, schedule=schedule).mean()
        adversarial = self.gan.student_loss(rollout, clips, critics.adversary, schedule=schedule, rng=rng)
        return distance + self.gan_weight * adversarial

    def distances(
        self, rollout: Rollout, critics: AddCritics, x_t: Video, t: NoiseLevel, *, schedule: Schedule
    ) -> Video:
        """c(t) (x0_hat - sg[D_real(x_t, t)])^2 of every value."""
        with torch.no_grad():
            real_x0 = rollout.judge(critics.real, x_t, t)
        return LEVEL_WEIGHTS[self.level_weight](schedule.at(t)) * (rollout.x0_hat - real_x0).square()

    def critic_loss(
        self, rollout: Rollout, clips: Video, critics: AddCritics, *, schedule: Schedule, rng: Generator
    ) -> Scalar:
        """The adversary's."""
        return self.gan.critic_loss(rollout, clips, critics.adversary, schedule=schedule, rng=rng)
