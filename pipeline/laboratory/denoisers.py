"""Closed forms behind the interface of networks: the denoiser and the discriminator of laws that are known."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.diffusion.log_snr import Coefficients
from pipeline.interfaces import NoiseLevel, Video
from pipeline.laboratory.closed_forms import (
    denoised,
    denoised_beside,
    denoised_causally,
    log_density,
    log_density_beside,
)
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec
from pipeline.models.discriminator import Discriminator

Law = Callable[[], GaussianMixture]  # of the clean frames of a pixel, as it is now: a student's moves


class ClosedForm(Denoiser):
    """A denoiser that is a formula: it has a schedule and an attention as networks have, and no backbone."""

    def __init__(self, attention: str) -> None:
        nn.Module.__init__(self)  # not that of a network
        self.spec = DenoiserSpec(BackboneSpec(attention=attention))


class LawDenoiser(ClosedForm, ABC):
    """E[x_0 | x_t] where pixels are independent and their frames follow a law; with the gradient that it carries.

    Under causal attention every frame is denoised from those up to it, under full attention from all.
    """

    @abstractmethod
    def law(self) -> GaussianMixture:
        """Of clean frames."""

    def forward(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
        assert end is None
        ask = denoised if self.spec.backbone.attention == "full" else denoised_causally
        return ask(self.law(), x_t, self._at(t))

    def beside(self, x_t: Video, t: NoiseLevel, context: Video, end: NoiseLevel | None = None) -> Video:
        """E[x_f | x_f,t and the clean frames before it]."""
        assert end is None
        return denoised_beside(self.law(), x_t, self._at(t), context)

    def _at(self, t: NoiseLevel) -> Coefficients:
        """Of one clip where all have the same levels, as along a flow: gains are then theirs together."""
        return self.spec.schedule.at((t[:1] if (t == t[:1]).all() else t).double())


class ExactDenoiser(LawDenoiser):
    """Of a law that is given: the score of data, or of a student as it is now, without its gradient."""

    def __init__(self, law: Law, attention: str = "full") -> None:
        super().__init__(attention)
        self._law = law

    def law(self) -> GaussianMixture:
        return self._law()


class LogRatio(Discriminator):
    """ln q_t - ln p_t, data over student: the logit that no discriminator betters."""

    def __init__(self, data: Law, student: Law) -> None:
        nn.Module.__init__(self)  # not that of a network
        self.laws = data, student
        self.schedule = DenoiserSpec().schedule

    def forward(self, x_t: Video, t: NoiseLevel) -> Float[Tensor, " B"]:
        """Of whole clips."""
        at = self.schedule.at(t.double())
        data, student = (log_density(law(), x_t, at) for law in self.laws)
        return (data - student).sum((1, 2, 3))

    def beside(self, x_t: Video, t: NoiseLevel, context: Video) -> Float[Tensor, "B T"]:
        """Of every frame after the clean frames before it."""
        at = self.schedule.at(t.double())
        data, student = (log_density_beside(law(), x_t, at, context) for law in self.laws)
        return (data - student).sum((2, 3, 4))
