"""Critics that learn, as small as the data: scores and discriminators of whole clips, and of frames one by one."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.data.processes_mixture import GaussianMixture, by_pixel, from_pixels
from pipeline.diffusion.log_snr import Coefficients
from pipeline.diffusion.prediction import PREDICTIONS
from pipeline.diffusion.schedule import Schedule
from pipeline.interfaces import NoiseLevel, Video
from pipeline.laboratory.denoisers import ClosedForm
from pipeline.models.denoiser import DenoiserSpec
from pipeline.models.discriminator import Discriminator

Points = Float[Tensor, "B C H W P"]


class Scale(nn.Module):
    """The mean and the spread of data, by which networks see frames."""

    mean: Tensor

    def __init__(self, data: GaussianMixture, schedule: Schedule) -> None:
        super().__init__()
        self.num_frames, self.schedule = data.num_frames, schedule
        self.sigma_data = data.covariance.diagonal().mean().sqrt().item()
        self.register_buffer("mean", data.mean)

    def noised(self, x_t: Video, t: NoiseLevel) -> tuple[Video, Coefficients, Points, Points]:
        """x_t about the mean and its coefficients; frames of unit variance and ln(sigma / alpha) / 4 of each."""
        at = self.schedule.at(t.double())
        centred = x_t - at.alpha * self._mean
        scaled = centred * torch.rsqrt((self.sigma_data * at.alpha) ** 2 + at.sigma**2)
        level = (at.sigma / at.alpha).log() / 4
        return centred, at, by_pixel(scaled), by_pixel(level.expand_as(x_t))

    def clean(self, x: Video) -> Points:
        """Clean frames, of unit variance."""
        return by_pixel((x - self._mean) / self.sigma_data)

    def to_x0(self, output: Points, centred: Video, at: Coefficients) -> Video:
        """In the preconditioning of EDM, arXiv:2206.00364, eq. 7.

        Unpreconditioned, an error would be multiplied by (alpha / sigma)^2 where scores are compared.
        """
        return PREDICTIONS["edm"].to_x0(from_pixels(output), centred, at, self.sigma_data) + self._mean

    @property
    def _mean(self) -> Float[Tensor, "T 1 1 1"]:
        return self.mean[:, None, None, None]


class SmallScore(ClosedForm):
    """E[x_0 | x_t] of whole clips of a pixel, learnt."""

    def __init__(self, data: GaussianMixture, width: int) -> None:
        super().__init__("full")
        self.scale = Scale(data, self.spec.schedule)
        self.network = _network(2 * data.num_frames, width, data.num_frames)

    def forward(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
        assert end is None
        centred, at, *features = self.scale.noised(x_t, t)
        return self.scale.to_x0(self.network(torch.cat(features, -1).float()), centred, at)


class SmallDiscriminator(Discriminator):
    """A logit of a pixel's noised frames and their levels, summed over pixels."""

    def __init__(self, data: GaussianMixture, width: int) -> None:
        nn.Module.__init__(self)  # not that of a copy of the teacher
        self.scale = Scale(data, DenoiserSpec().schedule)
        self.network = _network(2 * data.num_frames, width, 1)

    def forward(self, x_t: Video, t: NoiseLevel) -> Float[Tensor, " B"]:
        _, _, *features = self.scale.noised(x_t, t)
        return self.network(torch.cat(features, -1).float()).sum((1, 2, 3, 4))


class NextFrames(nn.Module):
    """A network for every frame of a clip, which sees the clean frames before it and a number of what is asked."""

    def __init__(self, num_frames: int, width: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(_network(before + 2, width, 1) for before in range(num_frames))

    def forward(self, clean: Points, scaled: Points, level: Points) -> Points:
        """One number of every frame."""
        answers = []
        for f, network in enumerate(self.networks):
            asked = torch.stack([scaled[..., f], level[..., f]], -1)
            answers.append(network(torch.cat([clean[..., :f], asked], -1).float()))
        return torch.cat(answers, -1)


class NextScore(ClosedForm):
    """E[x_f | x_f,t and the clean frames before it], learnt."""

    def __init__(self, data: GaussianMixture, width: int) -> None:
        super().__init__("causal")
        self.scale, self.next = Scale(data, self.spec.schedule), NextFrames(data.num_frames, width)

    def beside(self, x_t: Video, t: NoiseLevel, context: Video, end: NoiseLevel | None = None) -> Video:
        assert end is None
        centred, at, *features = self.scale.noised(x_t, t)
        return self.scale.to_x0(self.next(self.scale.clean(context), *features), centred, at)


class NextDiscriminator(Discriminator):
    """A logit of every noised frame after the clean frames before it, summed over pixels."""

    def __init__(self, data: GaussianMixture, width: int) -> None:
        nn.Module.__init__(self)  # not that of a copy of the teacher
        self.scale, self.next = Scale(data, DenoiserSpec().schedule), NextFrames(data.num_frames, width)

    def beside(self, x_t: Video, t: NoiseLevel, context: Video) -> Float[Tensor, "B T"]:
        _, _, *features = self.scale.noised(x_t, t)
        return self.next(self.scale.clean(context), *features).sum((1, 2, 3))


def _network(num_inputs: int, width: int, num_outputs: int) -> nn.Sequential:
    """In float32, as networks are; frames and what is made of its answers stay in float64."""
    sizes = (num_inputs, width, width)
    hidden = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*hidden, nn.Linear(width, num_outputs))
