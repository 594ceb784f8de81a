"""Critics of the laboratory: closed forms in the place of networks, or networks as small as the data."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from pipeline.data.processes_mixture import GaussianMixture, by_pixel, from_pixels
from pipeline.diffusion.log_snr import Coefficients
from pipeline.diffusion.prediction import PREDICTIONS
from pipeline.diffusion.schedule import Schedule
from pipeline.interfaces import NoiseLevel, Rollout, Scalar, Video
from pipeline.laboratory.denoisers import ClosedForm, ExactDenoiser, Law, LogRatio
from pipeline.losses.add import Add, AddCritics
from pipeline.losses.dmd import Dmd
from pipeline.losses.f_distill import FDistill, FDistillCritics
from pipeline.losses.gan import Gan
from pipeline.losses.loss import CriticLoss, Loss
from pipeline.losses.scores import Scores
from pipeline.losses.sid import Sid
from pipeline.models.denoiser import Denoiser, DenoiserSpec
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


def exact_critics(loss: Loss, data: GaussianMixture, student: Law) -> nn.Module:
    """What a loss asks, in closed form: the score of data, and of the judged law that `student` gives, their ratio.

    Raises:
        ValueError: a loss whose critics have no closed form here.
    """
    teacher = ExactDenoiser(lambda: data)
    return _critics(loss, teacher, ExactDenoiser(student), LogRatio(lambda: data, student))


def learned_critics(loss: Loss, data: GaussianMixture, width: int) -> nn.Module:
    """The score of data in closed form; what is said of the student is learnt by small networks."""
    return _critics(loss, ExactDenoiser(lambda: data), SmallScore(data, width), SmallDiscriminator(data, width))


def _critics(loss: Loss, teacher: Denoiser, fake: Denoiser, discriminator: Discriminator) -> nn.Module:
    match loss:
        case Dmd() | Sid():
            return _scores(loss, teacher, fake)
        case Gan():
            return discriminator
        case FDistill():
            return FDistillCritics(_scores(loss.dmd, teacher, fake), discriminator)
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


class SmallScore(ClosedForm):
    """A score of a pixel's frames in the preconditioning of EDM, arXiv:2206.00364, eq. 7, learnt.

    Unpreconditioned, its error would be multiplied by (alpha / sigma)^2 where scores are compared.
    """

    mean: Tensor

    def __init__(self, data: GaussianMixture, width: int) -> None:
        super().__init__("full")
        self.frames, self.sigma_data = data.num_frames, data.covariance.diagonal().mean().sqrt().item()
        self.register_buffer("mean", data.mean)
        self.network = _network(2 * self.frames, width, self.frames)

    def forward(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
        assert end is None
        at = self.spec.schedule.at(t.double())
        centred = x_t - at.alpha * self.mean[:, None, None, None]
        output = from_pixels(self.network(torch.cat(_features(centred, at, self.sigma_data), -1)))
        x0 = PREDICTIONS["edm"].to_x0(output, centred, at, self.sigma_data)
        return x0 + self.mean[:, None, None, None]


class SmallDiscriminator(Discriminator):
    """A logit of a pixel's noised frames and their levels, summed over pixels."""

    mean: Tensor

    def __init__(self, data: GaussianMixture, width: int) -> None:
        nn.Module.__init__(self)  # not that of a copy of the teacher
        self.schedule, self.sigma_data = DenoiserSpec().schedule, data.covariance.diagonal().mean().sqrt().item()
        self.register_buffer("mean", data.mean)
        self.network = _network(2 * data.num_frames, width, 1)

    def forward(self, x_t: Video, t: NoiseLevel) -> Float[Tensor, " B"]:
        at = self.schedule.at(t.double())
        centred = x_t - at.alpha * self.mean[:, None, None, None]
        logit = self.network(torch.cat(_features(centred, at, self.sigma_data), -1))
        return logit.sum((1, 2, 3, 4))


def _features(x_t: Video, at: Coefficients, sigma_data: float) -> tuple[Tensor, Tensor]:
    """Frames at unit variance and ln(sigma / alpha) / 4 of each, frames last."""
    scaled = x_t * torch.rsqrt((sigma_data * at.alpha) ** 2 + at.sigma**2)
    level = (at.sigma / at.alpha).log() / 4
    return by_pixel(scaled), by_pixel(level.expand_as(x_t))


def _network(num_inputs: int, width: int, num_outputs: int) -> nn.Sequential:
    sizes = (num_inputs, width, width)
    hidden = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*hidden, nn.Linear(width, num_outputs)).double()
