"""Gaussian mixtures over the frames of a pixel: density, score, denoiser and conditionals at any noise levels."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from pipeline.diffusion.log_snr import Coefficients
from pipeline.interfaces import Video
from pipeline.rules import at_least

SHARE_TOLERANCE = 1e-9  # of the sum of shares


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """sum_k shares_k N(means_k, factors_k factors_k^T) over F frames, float64, at one or many vectors of levels.

    shares: (K,), sum 1. means: (*L, K, F). factors: (*L, K, F, F), lower triangular. L are the levels of a noised
    mixture, none if clean. Points are (*N, *L, F): points first, as in torch.distributions.
    """

    shares: Float[Tensor, " K"]
    means: Float[Tensor, "*L K F"]
    factors: Float[Tensor, "*L K F F"]

    def __post_init__(self) -> None:
        if self.means.shape != self.factors.shape[:-1] or self.means.shape[-2] != len(self.shares):
            raise ValueError(
                f"shares (K,), means (*L, K, F) and factors (*L, K, F, F) must agree, got "
                f"{tuple(self.shares.shape)}, {tuple(self.means.shape)}, {tuple(self.factors.shape)}"
            )
        if not ((self.shares > 0).all() and abs(self.shares.sum().item() - 1) < SHARE_TOLERANCE):
            raise ValueError(f"shares must be above 0 and sum to 1, got {self.shares.tolist()}")

    @property
    def num_components(self) -> int:
        return len(self.shares)

    @property
    def num_frames(self) -> int:
        return self.means.shape[-1]

    @cached_property
    def covariances(self) -> Float[Tensor, "*L K F F"]:
        """Of every component."""
        return self.factors @ self.factors.mT

    @cached_property
    def mean(self) -> Float[Tensor, "*L F"]:
        """Of the whole mixture."""
        return torch.einsum("k,...kf->...f", self.shares, self.means)

    @cached_property
    def covariance(self) -> Float[Tensor, "*L F F"]:
        """Of the whole mixture: within components and between them."""
        apart = self.means - self.mean[..., None, :]
        each = self.covariances + apart[..., :, None] * apart[..., None, :]
        return torch.einsum("k,...kfg->...fg", self.shares, each)

    @cached_property
    def distribution(self) -> MixtureSameFamily:
        """The same in torch.distributions: batch L, event F."""
        return MixtureSameFamily(self._component_law, self._frame_law, validate_args=False)

    @cached_property
    def _component_law(self) -> Categorical:
        return Categorical(self.shares.expand(self.means.shape[:-1]), validate_args=False)

    @cached_property
    def _frame_law(self) -> MultivariateNormal:
        return MultivariateNormal(self.means, scale_tril=self.factors, validate_args=False)

    def noised(self, alpha: Float[Tensor, "*L F"], sigma: Float[Tensor, "*L F"]) -> "GaussianMixture":
        """The law of alpha x + sigma eps, of a clean mixture at every vector of levels."""
        assert self.means.ndim == 2
        scaled = alpha[..., None, :, None] * self.factors  # a clean frame keeps its factor, of whatever rank
        if not (sigma > 0).any():
            return GaussianMixture(self.shares, alpha[..., None, :] * self.means, scaled)
        noise = torch.diag_embed(sigma.square())[..., None, :, :]
        factors = torch.linalg.cholesky(scaled @ scaled.mT + noise)
        return GaussianMixture(self.shares, alpha[..., None, :] * self.means, factors)

    def first(self, num_frames: int) -> "GaussianMixture":
        """The law of the first frames."""
        return GaussianMixture(
            self.shares, self.means[..., :num_frames], self.factors[..., :num_frames, :num_frames]
        )

    def points(self, z: Float[Tensor, "N F"]) -> Float[Tensor, "K N *L F"]:
        """Standard-normal nodes carried to every component; component k counts shares_k."""
        moved = torch.einsum("...kfg,ng->kn...f", self.factors, z)
        return moved + self.means.movedim(-2, 0)[:, None]

    def log_density(self, x: Float[Tensor, "*NL F"]) -> Float[Tensor, "*NL"]:
        """ln q(x)."""
        return torch.logsumexp(self._joint(x), -1)

    def posterior(self, x: Float[Tensor, "*NL F"]) -> Float[Tensor, "*NL K"]:
        """q(component | x)."""
        return torch.softmax(self._joint(x), -1)

    def _joint(self, x: Tensor) -> Tensor:
        return self._frame_law.log_prob(x[..., None, :]) + self.shares.log()

    def score(self, x: Float[Tensor, "*NL F"]) -> Float[Tensor, "*NL F"]:
        """d ln q / dx."""
        precisions = torch.cholesky_inverse(self.factors)
        each = torch.einsum("...kfg,...kg->...kf", precisions, self.means - x[..., None, :])
        return (self.posterior(x)[..., None] * each).sum(-2)

    def denoised(
        self, z: Float[Tensor, "*NL F"], alpha: Float[Tensor, "*L F"], sigma: Float[Tensor, "*L F"]
    ) -> Float[Tensor, "*NL F"]:
        """E[x | alpha x + sigma eps = z] of a clean mixture, also where alpha or sigma is 0.

        sum_k q(k | z) (m_k + C_k A (A C_k A + S^2)^-1 (z - A m_k)).
        """
        noised = self.noised(alpha, sigma)
        shared = self.covariances * alpha[..., None, None, :]  # C_k A
        gains = torch.cholesky_solve(shared.mT, noised.factors).mT
        each = self.means + torch.einsum("...kfg,...kg->...kf", gains, z[..., None, :] - noised.means)
        return (noised.posterior(z)[..., None] * each).sum(-2)

    def next_frame(self, context: Float[Tensor, "*N P"]) -> MixtureSameFamily:
        """q(x_f | x_<f = context) of a clean mixture, P = f - 1 frames known; P = 0 gives the first frame's law."""
        known = context.shape[-1]
        if not known < self.num_frames:
            raise ValueError(f"context must be shorter than the clip: {known} of {self.num_frames} frames")
        whitened = torch.linalg.solve_triangular(
            self.factors[:, :known, :known],
            (context[..., None, :] - self.means[:, :known])[..., None],
            upper=False,
        )[..., 0]
        joint = self.shares.log() - self.factors[:, :known, :known].diagonal(dim1=-2, dim2=-1).log().sum(-1)
        joint = joint - whitened.square().sum(-1) / 2
        means = self.means[:, known] + (self.factors[:, known, :known] * whitened).sum(-1)
        stds = self.factors[:, known, known].expand_as(means)
        return MixtureSameFamily(Categorical(logits=joint), Normal(means, stds))

    def sample(self, num_samples: int, rng: Generator) -> Float[Tensor, "N F"]:
        """Independent draws of a clean mixture."""
        component = torch.multinomial(self.shares, num_samples, replacement=True, generator=rng)
        z = torch.randn(num_samples, self.num_frames, generator=rng, dtype=self.means.dtype)
        return self.means[component] + (self.factors[component] @ z[..., None])[..., 0]


def gaussian(mean: Float[Tensor, " F"], factor: Float[Tensor, "F F"]) -> GaussianMixture:
    """N(mean, factor factor^T) as a mixture of one."""
    return GaussianMixture(torch.ones(1, dtype=mean.dtype), mean[None], factor[None])


@dataclass(frozen=True, eq=False)
class IndependentPixels:
    """Clips of which every pixel draws its frames from one law, independently: D = C H W of them.

    Densities add and divergences grow with D; the best student stays the same.
    """

    law: GaussianMixture
    frame_shape: tuple[int, int, int] = (1, 1, 1)  # (C, H, W)

    def __post_init__(self) -> None:
        at_least(1, **dict(zip(("channels", "height", "width"), self.frame_shape, strict=True)))

    @property
    def num_pixels(self) -> int:
        return math.prod(self.frame_shape)

    def sample(self, num_clips: int, rng: Generator) -> Video:
        """Independent clips, float64."""
        x = self.law.sample(num_clips * self.num_pixels, rng)
        return x.reshape(num_clips, *self.frame_shape, -1).movedim(-1, 1)

    def log_density(self, clips: Video) -> Float[Tensor, " B"]:
        """ln q of whole clips, in nats."""
        return self.law.log_density(by_pixel(clips)).sum((1, 2, 3))

    def score(self, x_t: Video, at: Coefficients) -> Video:
        """d ln q_t / dx_t at one vector of levels a clip."""
        return from_pixels(self.law.noised(*_levels(at)).score(by_pixel(x_t)))

    def denoise(self, x_t: Video, at: Coefficients) -> Video:
        """E[x_0 | x_t] at one vector of levels a clip."""
        return from_pixels(self.law.denoised(by_pixel(x_t), *_levels(at)))


def by_pixel(clips: Video) -> Float[Tensor, "B C H W T"]:
    """Frames last, in float64: the points of a GaussianMixture."""
    return clips.double().movedim(1, -1)


def from_pixels(points: Float[Tensor, "B C H W T"]) -> Video:
    """The inverse."""
    return points.movedim(-1, 1)


def _levels(at: Coefficients) -> tuple[Tensor, Tensor]:
    """(B, 1, 1, 1, T): every clip has levels of its own, the same at all its pixels."""
    alpha, sigma = (c.double()[:, None, None, None, :, 0, 0, 0] for c in at)
    return alpha, sigma
