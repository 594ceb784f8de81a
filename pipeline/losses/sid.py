"""Score identity distillation: the Fisher divergence, with the gradient through both scores."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Generator

from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.diffusion.weighting import PredictionL2, Weighting
from pipeline.interfaces import NoiseLevel, Rollout, Scalar, Video
from pipeline.losses.scores import CLIP, Scores, check_score_levels, draw_score_levels, fake_score_loss, frozen
from pipeline.models.denoiser import Denoiser
from pipeline.rules import at_least, within
from pipeline.streams import noise_like

MIN_SCALE = 1e-5
EXACT_ALPHA = 0.5


@dataclass(frozen=True)
class Sid:
    """The difference of the scores against the student's own frames. SiD, arXiv:2404.04057, eq. 23.

    With an exact fake score its value is 1 - alpha times the Fisher divergence, averaged over noise with the weight
    sigma^4 / alpha_t^2 of clean frames. At alpha = 1/2, without the normaliser, its gradient is that of half this
    divergence; elsewhere it is that of none. SiD's code runs 1.2, Self-Forcing's 1.0.
    """

    needs_target: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    follows_flow: ClassVar[bool] = False
    needs_end_level: ClassVar[bool] = False
    divergence: ClassVar[str] = "Fisher, averaged over noise"
    bounds_likelihood: ClassVar[bool] = False
    critic_updates: int = 5  # of the fake score for each student update, each on a fresh rollout
    score_level: str = "shared"  # one level a clip, or one a frame
    level_min: float = 0.02  # of the score's noise level t, before the schedule's shift
    level_max: float = 0.98
    weighting: Weighting = field(default_factory=PredictionL2)  # of the fake score's denoising loss
    alpha: float = EXACT_ALPHA
    normaliser: bool = True  # divide by the teacher's mean error of a clip, a weight that the frames decide

    def __post_init__(self) -> None:
        at_least(1, critic_updates=self.critic_updates)
        check_score_levels(self.score_level, self.level_min, self.level_max)
        within(-math.inf, math.inf, open_low=True, open_high=True, alpha=self.alpha)

    @property
    def measure(self) -> str:
        """alpha and the normaliser decide."""
        if self.alpha != EXACT_ALPHA:
            return f"no divergence, the gradient being biased at alpha = {self.alpha:g}, of {{judged}}"
        near = "up to a weight that the frames decide, " if self.normaliser else ""
        return f"Fisher divergence, {near}averaged over noise, of {{judged}}"

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
        """The mean of `terms` at frames noised anew. It may be negative, and tells nothing of convergence."""
        x0_hat = rollout.x0_hat
        t = self.score_levels(x0_hat, rng)
        x_t = add_noise(schedule, x0_hat, noise_like(x0_hat, rng), t)
        return self.terms(rollout, critics, x_t, t).mean()

    def terms(self, rollout: Rollout, critics: Scores, x_t: Video, t: NoiseLevel) -> Video:
        """Of every value; gradients flow through x0_hat, x_t and both scores, and reach the weights of neither."""
        with frozen(critics):
            fake_x0, real_x0 = (rollout.judge(score, x_t, t) for score in (critics.fake, critics.real))
        terms = identity_terms(fake_x0, real_x0, rollout.x0_hat, alpha=self.alpha)
        if not self.normaliser:
            return terms
        scale = (rollout.x0_hat - real_x0).detach().abs().mean(dim=CLIP, keepdim=True)
        return terms / scale.clamp_min(MIN_SCALE)

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


def identity_terms(fake_x0: Video, real_x0: Video, x0_hat: Video, *, alpha: float) -> Video:
    """delta (real_x0 - x0_hat) - alpha delta^2 with delta = real_x0 - fake_x0. arXiv:2404.04057, eq. 23."""
    delta = real_x0 - fake_x0
    return delta * ((real_x0 - x0_hat) - alpha * delta)
