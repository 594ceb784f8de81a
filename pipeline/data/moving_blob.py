"""Linear dynamical systems drawn as a moving blob: video whose paths have an exact density."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.data.store import Clips
from pipeline.rules import above, at_least, within

MAX_LEAVING = 1e-4  # share of clips whose blob may leave the frame
SHARE_TOLERANCE = 1e-9
FIT_STEPS = 6  # Gauss-Newton, from the nearest pixel: the last ones move nothing
FIT_CHUNK = 2048  # frames fitted at once
MAX_GREY = 255.0


@dataclass(frozen=True)
class BlobSystem:
    """z_1 ~ N(start, start_std^2 I), z_f = decay R z_{f-1} + drift + w_f, w_f ~ N(0, noise^2 I), R a turn.

    z = (y, x) in pixels from the middle of the frame, y downwards. share: of the clips. turn: degrees a frame about
    the middle, to the left where positive. drift: pixels a frame. name: what people call it.
    """

    name: str
    share: float
    start: tuple[float, float] = (0.0, 0.0)
    start_std: float = 1.6
    turn: float = 0.0
    decay: float = 0.995
    drift: tuple[float, float] = (0.0, 0.0)
    noise: float = 0.16

    def __post_init__(self) -> None:
        within(0, 1, open_low=True, share=self.share)
        above(0, start_std=self.start_std, noise=self.noise)
        within(-180, 180, turn=self.turn)
        within(0, 1, decay=self.decay)

    @property
    def matrix(self) -> np.ndarray:
        """A = decay R, (2, 2)."""
        cos, sin = math.cos(math.radians(self.turn)), math.sin(math.radians(self.turn))
        return self.decay * np.array([[cos, -sin], [sin, cos]])

    def means(self, num_frames: int) -> np.ndarray:
        """E[z_f], (T, 2)."""
        means = [np.array(self.start)]
        while len(means) < num_frames:
            means.append(self.matrix @ means[-1] + self.drift)
        return np.stack(means)

    def stds(self, num_frames: int) -> np.ndarray:
        """Of either coordinate of z_f, which are independent: a turn keeps it so; (T,)."""
        variances = [self.start_std**2]
        while len(variances) < num_frames:
            variances.append(self.decay**2 * variances[-1] + self.noise**2)
        return np.sqrt(variances)

    def responses(self, num_frames: int) -> np.ndarray:
        """How the standard normal draw of frame g moves frame f, (T, 2, T, 2); 0 where g is after f."""
        moved = np.zeros((num_frames, 2, num_frames, 2))
        for f in range(num_frames):
            if f > 0:
                moved[f] = np.tensordot(self.matrix, moved[f - 1], axes=1)
            moved[f, :, f] = np.eye(2) * (self.noise if f > 0 else self.start_std)
        return moved


# Every frame has nearly the law of the first, so that long clips show nothing that short ones do not.
TURNING_AND_WANDERING = (
    BlobSystem("left", share=0.5, turn=30.0),
    BlobSystem("right", share=0.3, turn=-30.0),
    BlobSystem("wander", share=0.2),
)


@dataclass(frozen=True)
class ReadOut:
    """Where blobs are seen.

    positions: centres (y, x) in pixels, (N, T, 2). residuals: root mean square over the pixels of a frame of what
    the blob there leaves unexplained, as a share of the range of pixels, (N, T).
    """

    positions: np.ndarray
    residuals: np.ndarray


@dataclass(frozen=True)
class MovingBlob:
    """A Gaussian blob on black, its centre moved by one of several linear dynamical systems, drawn once a clip.

    No single frame of the default ones shows which of them moves it. Every split draws from the same law, by a
    stream of its own. The law of paths is a mixture of Gaussians over all coordinates, and stays so where a blob
    leaves the frame: it is drawn as far as it is seen, no path is thrown away or bent. That at most MAX_LEAVING of
    the clips do, in as many as max_frames frames, is asked of the parameters.

    frame_size: pixels a side. blob_std: standard deviation of the light, in pixels. max_frames: of a clip.
    """

    frame_size: int = 16
    blob_std: float = 1.2
    systems: tuple[BlobSystem, ...] = TURNING_AND_WANDERING
    max_frames: int = 32
    frames_per_s: float = 8.0

    def __post_init__(self) -> None:
        at_least(8, frame_size=self.frame_size)
        within(0.6, self.frame_size / 6, blob_std=self.blob_std)  # a thinner one is lost between pixels
        at_least(1, max_frames=self.max_frames, num_systems=len(self.systems))
        above(0, frames_per_s=self.frames_per_s)
        names = [system.name for system in self.systems]
        if len(set(names)) < len(names):
            raise ValueError(f"systems must have names of their own, got {', '.join(names)}")
        total = sum(system.share for system in self.systems)
        if abs(total - 1) > SHARE_TOLERANCE:
            raise ValueError(f"share must sum to 1 over the systems, got {total:g}")
        leaving = {system.name: system.share * self._leaving(system) for system in self.systems}
        if not sum(leaving.values()) <= MAX_LEAVING:
            raise ValueError(
                f"systems must keep the blob's centre in the frame in all but {MAX_LEAVING:g} of the clips of "
                f"max_frames frames: up to {min(1.0, sum(leaving.values())):.2g} leave it, most of them by system "
                f"{max(leaving, key=lambda name: leaving[name])}, with frame_size={self.frame_size}, "
                f"max_frames={self.max_frames}"
            )

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        return 1, self.frame_size, self.frame_size

    @property
    def num_classes(self) -> int:
        return len(self.systems)

    @property
    def middle(self) -> float:
        """Of the frame, where pixel centres are at whole numbers."""
        return (self.frame_size - 1) / 2

    def caption(self, labels: Mapping[str, np.ndarray], clip: int) -> str:
        return self.systems[int(labels["class"][clip, 0])].name

    def clips(self, split: str, num_clips: int, num_frames: int, rng: np.random.Generator) -> Clips:
        """Independent clips and their labels.

        Labels: class, the system (N, 1); position, the centre (y, x) in pixels (N, T, 1, 2); velocity, the mean
        step from there, in pixels a frame (N, T, 1, 2).
        """
        self._check_length(num_frames)
        del split  # nothing is shown twice but what the law itself repeats
        shares = [system.share for system in self.systems]
        classes = rng.choice(len(shares), size=num_clips, p=np.divide(shares, sum(shares)))
        normal = rng.standard_normal((num_clips, num_frames, 2))
        z, steps = np.empty((2, num_clips, num_frames, 2))
        for k, system in enumerate(self.systems):
            of_k = classes == k
            z[of_k] = system.means(num_frames) + np.einsum(
                "ficj,ncj->nfi", system.responses(num_frames), normal[of_k]
            )
            steps[of_k] = z[of_k] @ (system.matrix - np.eye(2)).T + system.drift
        positions = z + self.middle
        labels = {
            "class": classes.astype(np.int64)[:, None],
            "position": positions.astype(np.float32)[:, :, None],
            "velocity": steps.astype(np.float32)[:, :, None],
        }
        return Clips(np.round(self.drawn(positions)).astype(np.uint8)[:, :, None], labels)

    def law(self, num_frames: int) -> GaussianMixture:
        """Of paths in pixels, their 2 T coordinates in the order y_1, x_1, y_2, ...; component k is system k."""
        self._check_length(num_frames)
        means = np.stack([system.means(num_frames) for system in self.systems]) + self.middle
        factors = np.stack([system.responses(num_frames) for system in self.systems])
        shares = torch.tensor([system.share for system in self.systems], dtype=torch.float64)
        size = 2 * num_frames
        return GaussianMixture(
            shares / shares.sum(),
            torch.from_numpy(means.reshape(-1, size)),
            torch.from_numpy(factors.reshape(-1, size, size)),
        )

    def drawn(self, positions: np.ndarray) -> np.ndarray:
        """Blobs at (..., 2) in pixels, (..., H, W) in [0, 255]: each pixel the light that falls on it.

        A blob at the middle of a pixel is as bright there as a pixel can be.
        """
        light, _ = self._profiles(positions)
        return MAX_GREY * light[..., 0, :, None] * light[..., 1, None, :]

    def read_out(self, frames: np.ndarray) -> ReadOut:
        """Least squares: the place in the frame whose blob is nearest to each frame of uint8 (N, T, 1, H, W).

        Without a blob there is a place too, at a large residual: one outside would explain darkness well.
        """
        light = frames.reshape(-1, self.frame_size, self.frame_size)
        parts = [self.fit(light[at : at + FIT_CHUNK] / MAX_GREY) for at in range(0, len(light), FIT_CHUNK)]
        positions, residuals = (np.concatenate(values) for values in zip(*parts, strict=True))
        return ReadOut(positions.reshape(*frames.shape[:2], 2), residuals.reshape(frames.shape[:2]))

    def read_out_error(self, residual: float) -> float:
        """Standard deviation in pixels of a coordinate that white noise of this size would cause, in the middle."""
        light, slope = self._profiles(np.full((1, 2), self.middle))
        return residual / float(np.linalg.norm(slope[0, 0]) * np.linalg.norm(light[0, 1]))

    def _profiles(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The light of each row and of each column, (..., 2, H), and its slope as the blob moves on."""
        from scipy.special import ndtr

        edges = (np.arange(self.frame_size + 1) - 0.5 - positions[..., None]) / self.blob_std
        peak = ndtr(0.5 / self.blob_std) - ndtr(-0.5 / self.blob_std)
        density = np.exp(-(edges**2) / 2) / (math.sqrt(2 * math.pi) * self.blob_std)
        return np.diff(ndtr(edges)) / peak, -np.diff(density) / peak

    def fit(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions (N, 2) and residuals (N,) of frames (N, H, W) in [0, 1]."""
        size = self.frame_size
        templates, _ = self._profiles(np.arange(size, dtype=float)[:, None])
        templates = templates[:, 0] / np.linalg.norm(templates[:, 0], axis=-1, keepdims=True)
        matches = templates @ frames @ templates.T
        position = np.stack(np.divmod(matches.reshape(len(frames), -1).argmax(-1), size), axis=-1).astype(float)
        for _ in range(FIT_STEPS):
            light, slope = self._profiles(position)
            (y, x), (dy, dx) = np.moveaxis(light, -2, 0), np.moveaxis(slope, -2, 0)
            by_x, by_dx = (np.einsum("nij,nj->ni", frames, across) for across in (x, dx))
            gradient = np.stack(
                [_dot(dy, by_x) - _dot(dy, y) * _dot(x, x), _dot(y, by_dx) - _dot(y, y) * _dot(x, dx)], axis=-1
            )
            off = _dot(dy, y) * _dot(x, dx)
            normal = np.stack([_dot(dy, dy) * _dot(x, x), off, off, _dot(y, y) * _dot(dx, dx)], axis=-1)
            step = np.linalg.solve(normal.reshape(-1, 2, 2) + 1e-9 * np.eye(2), gradient[..., None])[..., 0]
            position = np.clip(position + np.clip(step, -1, 1), -0.5, size - 0.5)
        left = frames - self.drawn(position) / MAX_GREY
        return position, np.sqrt(np.mean(left**2, axis=(1, 2)))

    def _check_length(self, num_frames: int) -> None:
        within(1, self.max_frames, num_frames=num_frames)

    def _leaving(self, system: BlobSystem) -> float:
        """A bound on the share of its clips that leave the frame: the sum over frames and sides."""
        from scipy.special import ndtr

        means, stds = system.means(self.max_frames), system.stds(self.max_frames)[:, None]
        half = self.frame_size / 2
        return float((ndtr((means - half) / stds) + ndtr((-half - means) / stds)).sum())


def described_blob(described: Mapping[str, Any]) -> MovingBlob | None:
    """The source of a store, from its manifest; None where it is another one."""
    fields: dict[str, Any] = dict(described)
    if fields.pop("type") != f"{MovingBlob.__module__}.{MovingBlob.__qualname__}":
        return None
    systems = []
    for system in fields.pop("systems"):
        known: dict[str, Any] = {name: value for name, value in system.items() if name != "type"}
        start, drift = tuple(known.pop("start")), tuple(known.pop("drift"))
        systems.append(BlobSystem(start=start, drift=drift, **known))
    return MovingBlob(systems=tuple(systems), **fields)


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first * second).sum(-1)
