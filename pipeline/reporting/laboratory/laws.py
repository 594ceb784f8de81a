"""Densities for the pictures of the laboratory: of its processes, and of the students that were fitted to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Mixture:
    """Of K Gaussians, over F frames of one pixel: shares (K,), means (K, F), covariances (K, F, F)."""

    shares: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def density(self, x: np.ndarray) -> np.ndarray:
        """At x (..., F)."""
        return self._by_mode(x).sum(0)

    def recognised(self, num_draws: int = 4096) -> np.ndarray:
        """Of every mode, (K,), how probable it is on average at draws of its own that they are of this mode."""
        rng, means = np.random.default_rng(0), []
        for mode, (mean, covariance) in enumerate(zip(self.means, self.covariances, strict=True)):
            parts = self._by_mode(rng.multivariate_normal(mean, covariance, num_draws))
            means.append((parts[mode] / parts.sum(0)).mean())
        return np.array(means)

    def _by_mode(self, x: np.ndarray) -> np.ndarray:
        """What each mode adds to the density, (K, ...)."""
        parts = []
        for share, mean, covariance in zip(self.shares, self.means, self.covariances, strict=True):
            away = x - mean
            squared = np.einsum("...i,ij,...j->...", away, np.linalg.inv(covariance), away)
            parts.append(share * np.exp(-squared / 2) / np.sqrt(np.linalg.det(2 * np.pi * covariance)))
        return np.stack(parts)

    def first(self, num_frames: int) -> "Mixture":
        """The law of the first frames."""
        return Mixture(self.shares, self.means[:, :num_frames], self.covariances[:, :num_frames, :num_frames])


def of_record(recorded: Mapping[str, Any]) -> Mixture:
    """Of a process, as run.json has it."""
    return Mixture(*(np.array(recorded[name]) for name in ("shares", "means", "covariances")))


def of_student(at: Mapping[str, float]) -> Mixture:
    """The law of its first frames: N(m, s^2), or x_1 ~ N(m1, s1^2) and x_2 ~ N(c x_1 + m2, s2^2)."""
    if "m" in at:
        return Mixture(np.ones(1), np.array([[at["m"]]]), np.array([[[at["s"] ** 2]]]))
    m1, m2 = at.get("m1", 0.0), at.get("m2", 0.0)
    first, slope, noise = at["s1"] ** 2, at["c"], at["s2" if "s2" in at else "s"] ** 2
    covariance = [[first, slope * first], [slope * first, slope**2 * first + noise]]
    return Mixture(np.ones(1), np.array([[m1, slope * m1 + m2]]), np.array([covariance]))


def ellipse(law: Mixture, radius: float, num_points: int = 120) -> np.ndarray:
    """Points (2, N) of a single Gaussian's two frames at so many standard deviations."""
    angles = np.linspace(0, 2 * np.pi, num_points)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    return law.means[0][:, None] + radius * np.linalg.cholesky(law.covariances[0]) @ circle
