"""Adversarial loss at random noise levels: a discriminator between noised frames of the student and of data."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.interfaces import Judge, NoiseLevel, Rollout, Scalar, Video
from pipeline.losses.scores import check_score_levels, draw_score_levels, frozen
from pipeline.models.denoiser import Denoiser
from pipeline.models.discriminator import Discriminator
from pipeline.rules import above, at_least, one_of
from pipeline.streams import noise_like

OBJECTIVES = {  # of the logit of the student's frames; for relativistic, of what it is above that of data
    "saturating": lambda logit: -F.softplus(logit),  # descends 2 JSD(p_t, q_t)
    "non_saturating": lambda logit: F.softplus(-logit),  # descends 2 KL((p_t + q_t) / 2 || q_t)
    "relativistic": lambda margin: F.softplus(-margin),  # descends KL(p_t || q_t) - JSD(p_t x q_t, q_t x p_t)
}
FEATURES = ("teacher_trained", "teacher_frozen")
MEASURES = {
    "saturating": "Jensen-Shannon divergence, averaged over noise, of {judged}",
    "non_saturating": "softened reverse KL, averaged over noise, of {judged}",
    "relativistic": "reverse KL less a Jensen-Shannon divergence of pairs, averaged over noise, of {judged}",
}


@dataclass(frozen=True)
class Gan:
    """Frames of the student and of data, noised alike, told apart. Goodfellow et al., arXiv:1406.2661, eq. 1.

    Noise at random levels: Diffusion-GAN, arXiv:2206.02262. The non-saturating objective, which everybody's code
    runs, minimises a softened reverse KL; only the saturating one minimises the Jensen-Shannon divergence. The
    relativistic one, arXiv:1807.00734, compares each clip of the student with one of data.
    """

    needs_target: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True  # the discriminator starts from its features
    follows_flow: ClassVar[bool] = False
    needs_end_level: ClassVar[bool] = False
    divergence: ClassVar[str] = "Jensen-Shannon; non-saturating: softened reverse KL"
    bounds_likelihood: ClassVar[bool] = False
    critic_updates: int = 1
    objective: str = "non_saturating"
    score_level: str = "shared"  # one level a clip, or one a frame
    level_min: float = 0.02  # of the noise level t at which frames are judged
    level_max: float = 0.98
    features: str = "teacher_trained"  # the discriminator's: teacher_frozen trains its head alone
    r1_weight: float = 0.0  # of the squared slope of the logit at noised frames of data
    r2_weight: float = 0.0  # and at the student's, noised alike
    slope_distance: float = 0.01  # of the finite difference that measures both

    def __post_init__(self) -> None:
        at_least(1, critic_updates=self.critic_updates)
        one_of(OBJECTIVES, objective=self.objective)
        check_score_levels(self.score_level, self.level_min, self.level_max)
        one_of(FEATURES, features=self.features)
        at_least(0, r1_weight=self.r1_weight, r2_weight=self.r2_weight)
        above(0, slope_distance=self.slope_distance)

    @property
    def measure(self) -> str:
        """The objective decides."""
        return MEASURES[self.objective]

    def critics(self, teacher: Denoiser | None) -> Discriminator:
        """The discriminator, from the teacher's features."""
        assert teacher is not None
        return Discriminator(teacher, trains_features=self.features == "teacher_trained")

    def student_loss(
        self,
        rollout: Rollout,
        clips: Video,
        critics: Discriminator,
        *,
        schedule: Schedule,
        rng: Generator,
    ) -> Scalar:
        """The objective on the logits of the student's frames; the gradient flows through them alone."""
        t = self.levels(rollout.x0_hat, rng)
        x_t = add_noise(schedule, rollout.x0_hat, noise_like(rollout.x0_hat, rng), t)
        with frozen(critics):
            logit = rollout.judge(critics, x_t, t)
        if self.objective == "relativistic":
            with torch.no_grad():
                real = rollout.judge(critics, add_noise(schedule, clips, noise_like(clips, rng), t), t)
            logit = logit - real
        return OBJECTIVES[self.objective](logit).mean()

    def critic_loss(
        self, rollout: Rollout, clips: Video, critics: Discriminator, *, schedule: Schedule, rng: Generator
    ) -> Scalar:
        """Logistic loss of the discriminator on data and on the student's frames, noised to one level."""
        t = self.levels(clips, rng)
        real = add_noise(schedule, clips, noise_like(clips, rng), t)
        x0 = rollout.x0_hat.detach()
        fake = add_noise(schedule, x0, noise_like(x0, rng), t)
        real_logit, fake_logit = (rollout.judge(critics, x_t, t) for x_t in (real, fake))
        if self.objective == "relativistic":
            loss = F.softplus(fake_logit - real_logit).mean()
        else:
            loss = F.softplus(-real_logit).mean() + F.softplus(fake_logit).mean()
        for weight, x_t, logit in ((self.r1_weight, real, real_logit), (self.r2_weight, fake, fake_logit)):
            if weight > 0:
                loss = loss + weight * self.slope(rollout.judge, critics, x_t, t, logit, rng)
        return loss

    def slope(
        self,
        judge: Judge,
        critics: Discriminator,
        x_t: Video,
        t: NoiseLevel,
        logit: Tensor,
        rng: Generator,
    ) -> Scalar:
        """Mean squared slope of the logit, by a finite difference at the same noisy input. arXiv:2501.08316."""
        moved = judge(critics, x_t + self.slope_distance * noise_like(x_t, rng), t)
        return ((moved - logit) / self.slope_distance).square().mean()

    def levels(self, x0: Video, rng: Generator) -> NoiseLevel:
        """At which frames of the student and of data are judged."""
        return draw_score_levels(
            x0, score_level=self.score_level, level_min=self.level_min, level_max=self.level_max, rng=rng
        )
