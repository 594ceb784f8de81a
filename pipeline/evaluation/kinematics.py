"""Motion read out from pixels: where the light is, how fast it moves, how often it turns back."""

from dataclasses import dataclass

import numpy as np

MIN_REVERSAL = 0.5  # pixels a frame: a smaller change of direction is rounding


@dataclass(frozen=True)
class Motion:
    """Of a set of clips.

    speeds: of every step, in pixels a frame. bounce_rate: share of the inner frames in which a component of the
    velocity is reversed. motion_energy: mean absolute change of a pixel, in [0, 1].
    """

    speeds: np.ndarray
    bounce_rate: float
    motion_energy: float


def motion(clips: np.ndarray) -> Motion:
    """clips: uint8 (N, T, C, H, W) with T at least 3.

    With several digits the light's centre is their common one; compare only with real clips of the same kind.
    """
    if clips.shape[1] < 3:
        raise ValueError(f"motion needs clips of at least 3 frames, got {clips.shape[1]}")
    velocity = np.diff(centroids(clips), axis=1)
    before, after = velocity[:, :-1], velocity[:, 1:]
    is_reversed = (before * after < 0) & (np.abs(after - before) > MIN_REVERSAL)
    change = np.abs(np.diff(clips.astype(np.int16), axis=1))
    return Motion(
        speeds=np.linalg.norm(velocity, axis=-1).ravel(),
        bounce_rate=float(is_reversed.any(axis=-1).mean()),
        motion_energy=float(change.mean() / 255),
    )


def centroids(clips: np.ndarray) -> np.ndarray:
    """Centre of intensity (y, x) of each frame in pixels, float64 (N, T, 2); the middle where all is black."""
    light = clips.sum(axis=2, dtype=np.float64)
    H, W = light.shape[-2:]
    mass = light.sum(axis=(2, 3))
    y = light.sum(axis=3) @ np.arange(H)
    x = light.sum(axis=2) @ np.arange(W)
    middle = np.array([(H - 1) / 2, (W - 1) / 2])
    centre = np.stack([y, x], axis=-1) / np.maximum(mass, 1)[..., None]
    return np.where(mass[..., None] > 0, centre, middle)


def wasserstein(first: np.ndarray, second: np.ndarray) -> float:
    """1-Wasserstein distance of two samples of equal size on the line: the mean gap between equal ranks."""
    if len(first) != len(second):
        raise ValueError(f"both samples must have the same size: {len(first)} and {len(second)}")
    return float(np.abs(np.sort(first) - np.sort(second)).mean())


def compare_motion(generated: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """1-Wasserstein distance of the speeds (pixels a frame), and the rest of both sides."""
    ours, theirs = motion(generated), motion(real)
    return {
        "speed_w1": wasserstein(ours.speeds, theirs.speeds),
        "mean_speed": float(ours.speeds.mean()),
        "mean_speed_real": float(theirs.speeds.mean()),
        "bounce_rate": ours.bounce_rate,
        "bounce_rate_real": theirs.bounce_rate,
        "motion_energy": ours.motion_energy,
        "motion_energy_real": theirs.motion_energy,
    }
