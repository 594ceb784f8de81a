"""What a loss asks beside the student: closed forms in the place of networks, or networks as small as the data."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Generator, nn

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.diffusion.schedule import Schedule
from pipeline.interfaces import Rollout, Scalar, Video
from pipeline.laboratory.denoisers import ExactDenoiser, Law, LogRatio
from pipeline.laboratory.small_critics import NextDiscriminator, NextScore, SmallDiscriminator, SmallScore
from pipeline.losses.add import Add, AddCritics
from pipeline.losses.dmd import Dmd
from pipeline.losses.f_distill import FDistill, FDistillCritics
from pipeline.losses.gan import Gan
from pipeline.losses.loss import CriticLoss, Loss
from pipeline.losses.pagoda import Pagoda, PagodaCritics
from pipeline.losses.scores import Scores
from pipeline.losses.sid import Sid
from pipeline.models.denoiser import Denoiser
from pipeline.models.discriminator import Discriminator

CRITICS = ("exact", "learned")


@dataclass(frozen=True)
class Solved:
    """A loss whose critics are at their optimum at every step, so that there is nothing of theirs to train."""

    loss: CriticLoss
    critic_updates: ClassVar[int] = 0

    @property
    def needs_target(self) -> bool:
        return self.loss.needs_target

    @property
    def needs_teacher(self) -> bool:
        return self.loss.needs_teacher

    @property
    def follows_flow(self) -> bool:
        return self.loss.follows_flow

    @property
    def needs_end_level(self) -> bool:
        return self.loss.needs_end_level

    @property
    def divergence(self) -> str:
        return self.loss.divergence

    @property
    def bounds_likelihood(self) -> bool:
        return self.loss.bounds_likelihood

    @property
    def measure(self) -> str:
        return self.loss.measure

    def critics(self, teacher: Denoiser | None) -> nn.Module:
        return self.loss.critics(teacher)

    def student_loss(
        self, rollout: Rollout, clips: Video, critics: Any, *, schedule: Schedule, rng: Generator
    ) -> Scalar:
        """That of the loss."""
        return self.loss.student_loss(rollout, clips, critics, schedule=schedule, rng=rng)


def exact_critics(loss: Loss, data: GaussianMixture, student: Law, *, attention: str = "full") -> nn.Module:
    """What a loss asks, in closed form: the score of data, and of the judged law that `student` gives, their ratio.

    attention: of the score of data.

    Raises:
        ValueError: a loss whose critics have no closed form here.
    """
    teacher = ExactDenoiser(lambda: data, attention)
    return _critics(loss, teacher, ExactDenoiser(student), LogRatio(lambda: data, student))


def learned_critics(
    loss: Loss, data: GaussianMixture, width: int, *, of_next_frame: bool, attention: str = "full"
) -> nn.Module:
    """The score of data in closed form; what is said of the student is learnt by small networks.

    of_next_frame: they are asked of each frame beside its true context, else of whole clips. attention: of the
    score of data.
    """
    score, discriminator = (NextScore, NextDiscriminator) if of_next_frame else (SmallScore, SmallDiscriminator)
    teacher = ExactDenoiser(lambda: data, attention)
    return _critics(loss, teacher, score(data, width), discriminator(data, width))


def _critics(loss: Loss, teacher: Denoiser, fake: Denoiser, discriminator: Discriminator) -> nn.Module:
    match loss:
        case Dmd() | Sid():
            return _scores(loss, teacher, fake)
        case Gan():
            return discriminator
        case FDistill():
            return FDistillCritics(_scores(loss.dmd, teacher, fake), discriminator)
        case Pagoda():
            return PagodaCritics(teacher, discriminator)
        case Add():
            return AddCritics(teacher, discriminator)
        case _ if isinstance(loss, CriticLoss):
            raise ValueError(f"loss must be one whose critics are known in closed form, got {type(loss).__name__}")
        case _:
            return loss.critics(teacher if loss.needs_teacher else None)


def _scores(loss: Dmd | Sid, teacher: Denoiser, fake: Denoiser) -> Scores:
    """Those of the loss, but for the score of the student's frames."""
    scores = loss.critics(teacher)
    scores.fake = fake
    return scores
