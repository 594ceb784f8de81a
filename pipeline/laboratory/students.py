"""Students too small to fit, as the grid asks them: as denoisers of data, and as generators of a single step."""

import torch
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.interfaces import NoiseLevel, Video
from pipeline.laboratory.denoisers import ClosedForm, LawDenoiser
from pipeline.laboratory.laws import chain_law
from pipeline.models.denoiser import Context
from pipeline.models.linear_gaussian import Chain, LinearGaussianStudent


class DenoisingStudent(LawDenoiser):
    """Trained on data: the denoiser of its own law, whose parameters learn."""

    def __init__(self, own: LinearGaussianStudent, attention: str) -> None:
        super().__init__(attention)
        self.own = own

    def law(self) -> GaussianMixture:
        return chain_law(self.own.chain, self.own.spec.num_frames)


class GeneratingStudent(ClosedForm):
    """Judged by its own frames: pure noise becomes a frame of its law in one step, in the context of those before.

    x_1 = m1 + s1 z, x_f = c x_{f-1} + m2 + s2 z. A frame at t = 0 is context, and stays as it is. The cache is the
    last finished frame; where it was noised, a frame is of the student's own law given a frame so noised.
    """

    def __init__(self, own: LinearGaussianStudent, attention: str) -> None:
        super().__init__(attention)
        self.own = own

    def forward(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
        assert end is None
        return self._roll(x_t, t, None)

    def beside(self, x_t: Video, t: NoiseLevel, context: Video, end: NoiseLevel | None = None) -> Video:
        """Every frame after the clean one before it."""
        assert end is None
        self._check_levels(t)
        chain = self.own.chain
        later = chain.next_mean(context[:, :-1]) + chain.s2.abs() * x_t[:, 1:]
        return torch.cat([chain.m1 + chain.s1.abs() * x_t[:, :1], later], 1)

    def denoise_chunk(
        self, x_t: Video, t: NoiseLevel, cache: Context | None, end: NoiseLevel | None = None
    ) -> Video:
        """Frames after the one in the cache."""
        assert end is None
        return self._roll(x_t, t, cache)

    def extend(self, cache: Context | None, x: Video, t: NoiseLevel, *, window: int) -> Context:  # noqa: ARG002
        """The last frame is all that its law looks at."""
        num_frames = (cache.num_frames if cache else 0) + x.shape[1]
        return Context(num_frames, None, x[:, -1:], t[:, -1:])

    def _roll(self, x_t: Video, t: NoiseLevel, cache: Context | None) -> Video:
        self._check_levels(t)
        chain, frames, previous = self.own.chain, [], None
        std = chain.s2.abs()
        if cache is not None:
            previous, unknown = self._remembered(chain, cache)
            std = (std.square() + chain.c.square() * unknown).sqrt() if (unknown > 0).any() else std
        is_clean = (t == 0)[:, :, None, None, None]
        for f in range(x_t.shape[1]):
            z = x_t[:, f : f + 1]
            made = chain.m1 + chain.s1.abs() * z if previous is None else chain.next_mean(previous) + std * z
            previous = torch.where(is_clean[:, f : f + 1], z, made)
            frames.append(previous)
            std = chain.s2.abs()
        return torch.cat(frames, 1)

    def _remembered(self, chain: Chain, cache: Context) -> tuple[Video, Tensor]:
        """Mean and variance of the last frame given what the cache has of it."""
        assert cache.frames is not None
        assert cache.t is not None
        if not (cache.t > 0).any():
            return cache.frames, torch.zeros_like(cache.frames)
        alpha, sigma = self.spec.schedule.at(cache.t)
        mean, variance = chain.mean(cache.num_frames)[-1], chain.factor(cache.num_frames)[-1].square().sum()
        gain = variance * alpha / (alpha.square() * variance + sigma.square())
        return mean + gain * (cache.frames - alpha * mean), variance * (1 - gain * alpha)

    def _check_levels(self, t: NoiseLevel) -> None:
        assert ((t == 0) | (t == 1)).all(), "a generator of one step knows pure noise and clean context alone"
