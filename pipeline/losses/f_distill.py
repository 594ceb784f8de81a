"""Any f-divergence from DMD's gradient: a discriminator says how dense data are where the student's frames lie."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor, nn

from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.diffusion.weighting import PredictionL2, Weighting
from pipeline.interfaces import NoiseLevel, Rollout, Scalar, Video
from pipeline.losses.dmd import Dmd
from pipeline.losses.gan import Gan
from pipeline.losses.scores import Scores, pseudo_target_loss
from pipeline.models.denoiser import Denoiser
from pipeline.models.discriminator import Discriminator
from pipeline.rules import above, one_of
from pipeline.streams import noise_like


class FDivergence(NamedTuple):
    """E_p[f(r)] of the density ratio r = q / p of data and student; its gradient is the reverse KL's times h."""

    name: str
    h: Callable[[Tensor], Tensor]  # f''(r) r^2


F_DIVERGENCES = {  # arXiv:2502.15681, table 1, up to a constant
    "reverse_kl": FDivergence("reverse KL", torch.ones_like),
    "forward_kl": FDivergence("forward KL", lambda r: r),
    "jensen_shannon": FDivergence("Jensen-Shannon divergence", lambda r: r / (1 + r)),
    "softened_reverse_kl": FDivergence("softened reverse KL", lambda r: 1 / (1 + r)),
    "squared_hellinger": FDivergence("squared Hellinger distance", torch.sqrt),
    "jeffreys": FDivergence("Jeffreys divergence", lambda r: 1 + r),
    "neyman": FDivergence("Neyman chi-squared divergence", lambda r: 1 / r),
}


class FDistillCritics(nn.Module):
    """Both scores, and the discriminator; the fake score and the discriminator learn."""

    def __init__(self, scores: Scores, discriminator: Discriminator) -> None:
        super().__init__()
        self.scores = scores
        self.discriminator = discriminator


@dataclass(frozen=True)
class FDistill:
    """DMD's gradient times h(r), r = q_t / p_t = exp(logit) at the same noised frames. arXiv:2502.15681, eq. 6.

    Unlike the public code, which divides h by its mean over like levels, h stands alone.
    """

    needs_target: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    follows_flow: ClassVar[bool] = False
    needs_end_level: ClassVar[bool] = False
    divergence: ClassVar[str] = "an f-divergence of choice, averaged over noise"
    bounds_likelihood: ClassVar[bool] = False
    f_divergence: str = "jensen_shannon"
    ratio_min: float = 0.1  # of r, as the public code has it
    ratio_max: float = 20.0
    critic_updates: int = 5  # of the fake score and the discriminator together, each on a fresh rollout
    score_level: str = "shared"  # one level a clip, or one a frame
    level_min: float = 0.02  # of the noise level t, before the schedule's shift
    level_max: float = 0.98
    weighting: Weighting = field(default_factory=PredictionL2)  # of the fake score's denoising loss
    space: str = "x0"  # as for dmd
    normaliser: bool = True

    def __post_init__(self) -> None:
        one_of(F_DIVERGENCES, f_divergence=self.f_divergence)
        above(0, ratio_min=self.ratio_min)
        above(self.ratio_min, ratio_max=self.ratio_max)
        _ = self.dmd, self.gan  # which refuse what is impossible for them

    @property
    def dmd(self) -> Dmd:
        """The reverse KL, of which every other divergence is a weighted kind."""
        return Dmd(
            critic_updates=self.critic_updates,
            score_level=self.score_level,
            level_min=self.level_min,
            level_max=self.level_max,
            weighting=self.weighting,
            space=self.space,
            normaliser=self.normaliser,
        )

    @property
    def gan(self) -> Gan:
        """How the discriminator learns: at the levels at which it is asked."""
        return Gan(
            critic_updates=self.critic_updates,
            score_level=self.score_level,
            level_min=self.level_min,
            level_max=self.level_max,
        )

    @property
    def measure(self) -> str:
        """The divergence of choice, and whether the frames of a clip are weighed alike."""
        bent = self.space == "x0" and self.score_level == "independent"
        what = F_DIVERGENCES[self.f_divergence].name
        return f"{'nearly the ' if bent else ''}{what}, averaged over noise, of {{judged}}"

    def critics(self, teacher: Denoiser | None) -> FDistillCritics:
        """Those of dmd, and that of gan."""
        assert teacher is not None
        return FDistillCritics(self.dmd.critics(teacher), self.gan.critics(teacher))

    def student_loss(
        self,
        rollout: Rollout,
        clips: Video,  # noqa: ARG002 - only the discriminator sees data
        critics: FDistillCritics,
        *,
        schedule: Schedule,
        rng: Generator,
    ) -> Scalar:
        """A loss whose gradient at x0_hat is `gradient` / numel."""
        x0_hat = rollout.x0_hat
        with torch.no_grad():
            t = self.dmd.score_levels(x0_hat, rng)
            x_t = add_noise(schedule, x0_hat, noise_like(x0_hat, rng), t)
            gradient = self.gradient(rollout, critics, x_t, t, schedule=schedule)
        return pseudo_target_loss(x0_hat, gradient)

    def gradient(
        self, rollout: Rollout, critics: FDistillCritics, x_t: Video, t: NoiseLevel, *, schedule: Schedule
    ) -> Video:
        """Of the divergence at the student's frames, which were noised to x_t."""
        logit = rollout.judge(critics.discriminator, x_t, t).reshape(len(x_t), -1)  # one a clip, or one a chunk
        ratio = logit.exp().clamp(self.ratio_min, self.ratio_max)
        weight = F_DIVERGENCES[self.f_divergence].h(ratio).repeat_interleave(t.shape[1] // ratio.shape[1], dim=1)
        reverse_kl = self.dmd.gradient(rollout, critics.scores, x_t, t, schedule=schedule)
        return weight[:, :, None, None, None] * reverse_kl

    def critic_loss(
        self, rollout: Rollout, clips: Video, critics: FDistillCritics, *, schedule: Schedule, rng: Generator
    ) -> Scalar:
        """That of the fake score and that of the discriminator; they share no parameter."""
        score = self.dmd.critic_loss(rollout, clips, critics.scores, schedule=schedule, rng=rng)
        return score + self.gan.critic_loss(rollout, clips, critics.discriminator, schedule=schedule, rng=rng)
