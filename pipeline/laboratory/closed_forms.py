"""Bayes' rule, frame by frame: what the noised frames of a clip say of its clean ones, where their law is known.

Scalars are all that a frame needs: the Kalman filter, of every component of a mixture. Frames and components come
first, then clips and their pixels.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.diffusion.log_snr import Coefficients
from pipeline.interfaces import Video

ByPixel = Float[Tensor, "B C H W"]
LOG_2PI = math.log(2 * math.pi)


class Observed(NamedTuple):
    """A frame as it is seen, z = alpha x + sigma eps."""

    z: ByPixel
    alpha: Float[Tensor, "B 1 1 1"] | float
    sigma: Float[Tensor, "B 1 1 1"] | float


class Belief(NamedTuple):
    """The law of a pixel's frames given those observed so far: a Gaussian of every component.

    log_joint: ln of the component's share and of the density of what was observed. covariances: of every frame with
    the G frames to come, which are the last.
    """

    log_joint: Float[Tensor, "K ..."]
    means: Float[Tensor, "F K ..."]
    covariances: Float[Tensor, "F G K ..."]

    @classmethod
    def of(cls, law: GaussianMixture) -> "Belief":
        """Before anything is observed, of a clean mixture."""
        parts = law.shares.log(), law.means.T, law.covariances.movedim(0, -1)
        return cls(*(part[..., None, None, None, None] for part in parts))

    def observe(self, seen: Observed) -> "Belief":
        """Given the next frame, too."""
        f = len(self.means) - self.covariances.shape[1]
        shared = seen.alpha * self.covariances[:, 0]
        variance = seen.alpha * shared[f] + seen.sigma**2
        surprise = seen.z - seen.alpha * self.means[f]
        log_density = -(surprise.square() / variance + variance.log() + LOG_2PI) / 2
        gain = shared / variance
        return Belief(
            self.log_joint + log_density,
            self.means + gain * surprise,
            self.covariances[:, 1:] - gain[:, None] * shared[f + 1 :],
        )

    def to_come(self) -> "Belief":
        """Of the frames that were not observed, which is all that later ones need."""
        f = len(self.means) - self.covariances.shape[1]
        return Belief(self.log_joint, self.means[f:], self.covariances[f:])

    def next_frame(self) -> "Belief":
        """Of the next frame alone."""
        coming = self.to_come()
        return Belief(self.log_joint, coming.means[:1], coming.covariances[:1, :1])

    @property
    def log_density(self) -> ByPixel:
        """Of what was observed."""
        return torch.logsumexp(self.log_joint, 0)

    @property
    def mean(self) -> Float[Tensor, "F B C H W"]:
        """Of the whole mixture."""
        return (torch.softmax(self.log_joint, 0) * self.means).sum(1)


def denoised(law: GaussianMixture, x_t: Video, at: Coefficients) -> Video:
    """E[x_0 | x_t]."""
    belief = Belief.of(law)
    for seen in _noised(x_t, at):
        belief = belief.observe(seen)
    return belief.mean.movedim(0, 1)


def denoised_causally(law: GaussianMixture, x_t: Video, at: Coefficients) -> Video:
    """E[x_f | x_<=f,t]."""
    belief, found = Belief.of(law), []
    for seen in _noised(x_t, at):
        belief = belief.to_come().observe(seen)
        found.append(belief.mean[0])
    return torch.stack(found, 1)


def denoised_beside(law: GaussianMixture, x_t: Video, at: Coefficients, context: Video) -> Video:
    """E[x_f | x_f,t and the clean frames before it]."""
    return torch.stack([after.mean[0] for _, after in _beside(law, x_t, at, context)], 1)


def log_density(law: GaussianMixture, x_t: Video, at: Coefficients) -> ByPixel:
    """ln q_t(x_t)."""
    belief = Belief.of(law)
    for seen in _noised(x_t, at):
        belief = belief.to_come().observe(seen)
    return belief.log_density


def log_density_beside(law: GaussianMixture, x_t: Video, at: Coefficients, context: Video) -> Video:
    """ln q_t(x_f,t | x_<f) of every frame."""
    pairs = _beside(law, x_t, at, context)
    return torch.stack([after.log_density - before.log_density for before, after in pairs], 1)


def _beside(law: GaussianMixture, x_t: Video, at: Coefficients, context: Video) -> Iterator[tuple[Belief, Belief]]:
    """Of every frame: the belief after the clean frames before it, and that after its noised self, too."""
    belief = Belief.of(law)
    for seen, clean in zip(_noised(x_t, at), context.double().unbind(1), strict=True):
        yield belief, belief.next_frame().observe(seen)
        belief = belief.to_come().observe(Observed(clean, 1.0, 0.0))


def _noised(x_t: Video, at: Coefficients) -> Iterator[Observed]:
    return map(Observed, x_t.double().unbind(1), at.alpha.unbind(1), at.sigma.unbind(1))
