"""Closed forms behind the interface of networks: the denoiser and the discriminator of laws that are known."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.data.processes_mixture import GaussianMixture, by_pixel, from_pixels
from pipeline.diffusion.log_snr import Coefficients
from pipeline.interfaces import NoiseLevel, Video
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec
from pipeline.models.discriminator import Discriminator

Law = Callable[[], GaussianMixture]  # of the clean frames of a pixel, as it is now: a student's moves
Points = Float[Tensor, "B C H W P"]


class ClosedForm(Denoiser):
    """A denoiser that is a formula: it has a schedule and an attention as networks have, and no backbone."""

    def __init__(self, attention: str) -> None:
        nn.Module.__init__(self)  # not that of a network
        self.spec = DenoiserSpec(BackboneSpec(attention=attention))


class LawDenoiser(ClosedForm):
    """E[x_0 | x_t] where pixels are independent and their frames follow a law; with the gradient that it carries.

    Under causal attention every frame is denoised from those up to it, under full attention from all.
    """

    def law(self) -> GaussianMixture:
        """Of clean frames."""
        raise NotImplementedError

    def forward(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
        assert end is None
        law, points, (alpha, sigma) = self.law(), by_pixel(x_t), _by_pixel(self.spec.schedule.at(t.double()))
        if self.spec.backbone.attention == "full":
            return from_pixels(law.denoised(points, alpha, sigma))
        frames = [
            law.first(n).denoised(points[..., :n], alpha[..., :n], sigma[..., :n])[..., -1:]
            for n in range(1, law.num_frames + 1)
        ]
        return from_pixels(torch.cat(frames, -1))

    def beside(self, x_t: Video, t: NoiseLevel, context: Video, end: NoiseLevel | None = None) -> Video:
        """E[x_f | x_f,t and the clean frames before it]."""
        assert end is None
        law, at = self.law(), self.spec.schedule.at(t.double())
        frames = [
            law.first(n).denoised(*_after_clean(x_t, context, at, n))[..., -1:]
            for n in range(1, law.num_frames + 1)
        ]
        return from_pixels(torch.cat(frames, -1))


class ExactDenoiser(LawDenoiser):
    """Of a law that is given: the score of data, or of a student as it is now, without its gradient."""

    def __init__(self, law: Law) -> None:
        super().__init__("full")
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
        at = _by_pixel(self.schedule.at(t.double()))
        data, student = (law().noised(*at).log_density(by_pixel(x_t)) for law in self.laws)
        return (data - student).sum((1, 2, 3))

    def beside(self, x_t: Video, t: NoiseLevel, context: Video) -> Float[Tensor, "B T"]:
        """Of every frame after the clean frames before it."""
        at = self.schedule.at(t.double())
        data, student = (self._next_frames(law(), x_t, context, at) for law in self.laws)
        return (data - student).sum((1, 2, 3))

    def _next_frames(self, law: GaussianMixture, x_t: Video, context: Video, at: Coefficients) -> Points:
        """ln p(x_f,t | x_<f)."""
        found = []
        for n in range(1, law.num_frames + 1):
            points, alpha, sigma = _after_clean(x_t, context, at, n)
            known = law.first(n - 1).log_density(points[..., :-1]) if n > 1 else 0.0
            found.append(law.first(n).noised(alpha, sigma).log_density(points) - known)
        return torch.stack(found, -1)


def _by_pixel(at: Coefficients) -> tuple[Tensor, Tensor]:
    """Coefficients (B, 1, 1, 1, T): every clip has levels of its own, the same at all its pixels."""
    alpha, sigma = (c[:, None, None, None, :, 0, 0, 0] for c in at)
    return alpha, sigma


def _after_clean(x_t: Video, context: Video, at: Coefficients, num_frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Frame number `num_frames`, noised, after the clean ones before it: points, alpha and sigma."""
    last = num_frames - 1
    points = torch.cat([by_pixel(context[:, :last]), by_pixel(x_t[:, last:num_frames])], -1)
    alpha, sigma = (c[..., last:num_frames] for c in _by_pixel(at))
    clean = alpha.new_ones(*alpha.shape[:-1], last)
    return points, torch.cat([clean, alpha], -1), torch.cat([0 * clean, sigma], -1)
