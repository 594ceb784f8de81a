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

Points = Float[Tensor, "*N C H W"]  # of clips, or of frames and clips
LOG_2PI = math.log(2 * math.pi)


class Observed(NamedTuple):
    """A frame as it is seen, z = alpha x + sigma eps."""

    z: Points
    alpha: Float[Tensor, "*N 1 1 1"]
    sigma: Float[Tensor, "*N 1 1 1"]


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
        return cls(*map(_at_points, (law.shares.log(), law.means.T, law.covariances.movedim(0, -1))))

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

    @property
    def log_density(self) -> Points:
        """Of what was observed."""
        return torch.logsumexp(self.log_joint, 0)

    @property
    def mean(self) -> Float[Tensor, "F ..."]:
        """Of the whole mixture."""
        if len(self.log_joint) == 1:  # there are none to weigh, and no gradient goes that way
            return self.means[:, 0]
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
    after = _each_after_clean(law, context).observe(_seen(x_t, at))
    return after.mean[0].movedim(0, 1)


def log_density(law: GaussianMixture, x_t: Video, at: Coefficients) -> Points:
    """ln q_t(x_t)."""
    belief = Belief.of(law)
    for seen in _noised(x_t, at):
        belief = belief.to_come().observe(seen)
    return belief.log_density


def log_density_beside(law: GaussianMixture, x_t: Video, at: Coefficients, context: Video) -> Video:
    """ln q_t(x_f,t | x_<f) of every frame."""
    before = _each_after_clean(law, context)
    return (before.observe(_seen(x_t, at)).log_density - before.log_density).movedim(0, 1)


def _each_after_clean(law: GaussianMixture, clips: Video) -> Belief:
    """Of every frame alone, given the clean ones before it; the frames of a clip are points beside each other.

    With L the factor of a component and z = L^-1 (x - m), it has the mean x_f - L_ff z_f and the variance L_ff^2.
    """
    x = clips.double().movedim(1, 0)
    whitening = torch.linalg.solve_triangular(law.factors, torch.eye(law.num_frames).to(x), upper=False)
    z = torch.einsum("kfg,kg...->kf...", whitening, x - _at_points(law.means))
    std = _at_points(law.factors.diagonal(dim1=1, dim2=2))
    log_densities = -(z.square() + LOG_2PI) / 2 - std.log()
    log_joint = _at_points(law.shares.log()[:, None]) + log_densities.cumsum(1) - log_densities
    return Belief(log_joint, (x - std * z)[None], std.square()[None, None])


def _at_points(of_law: Tensor) -> Tensor:
    """The same at every clip and pixel."""
    return of_law[..., None, None, None, None]


def _seen(x_t: Video, at: Coefficients) -> Observed:
    """All frames, which come first."""
    return Observed(*(part.movedim(1, 0) for part in (x_t.double(), *at)))


def _noised(x_t: Video, at: Coefficients) -> Iterator[Observed]:
    """One frame after another."""
    return map(Observed, *_seen(x_t, at))
