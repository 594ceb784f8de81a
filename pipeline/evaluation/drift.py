"""Drift: how fast quality falls along a rollout, frame by frame and window by window, each beside its floor."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from pipeline.evaluation.extractors import ByteVideo, VideoFeatures, as_pixels
from pipeline.evaluation.frechet import Features, frechet_distance
from pipeline.models.digit_reader import DigitReader

FRAME_BATCH = 2048

FrameFeatures = Float64[Tensor, "_ T D"]


@dataclass(frozen=True)
class Curve:
    """A distance along the clip.

    position: of the frame or of the window's first frame, from 1. distance: of generated clips from the reference
    there; floor: of held-out real clips. slope: growth of distance - floor a frame, by least squares.
    """

    position: tuple[int, ...]
    distance: tuple[float, ...]
    floor: tuple[float, ...]
    slope: float


def window_starts(num_frames: int, window_len: int) -> range:
    """First frames, from 0, of windows of `window_len` that overlap by half.

    Raises:
        ValueError: not even one window fits.
    """
    if window_len < 2 or num_frames < window_len:
        raise ValueError(f"a window must be at least 2 and at most all frames: T={num_frames}, window={window_len}")
    return range(0, num_frames - window_len + 1, max(1, window_len // 2))


def window_features(features: VideoFeatures, clips: ByteVideo, window_len: int) -> list[Features]:
    """Features of every window of the clips, in order."""
    starts = window_starts(clips.shape[1], window_len)
    return [features(clips[:, start : start + window_len]) for start in starts]


@torch.no_grad()
def frame_features(reader: DigitReader, clips: ByteVideo) -> FrameFeatures:
    """The digit reader's features of every frame."""
    N, T = clips.shape[:2]
    parts = [reader.features(as_pixels(part)).double() for part in clips.flatten(0, 1).split(FRAME_BATCH)]
    return torch.cat(parts).unflatten(0, (N, T))


def frame_curve(generated: FrameFeatures, reference: FrameFeatures, held_out: FrameFeatures) -> Curve:
    """Fréchet distance by frame, in units of the reference's spread over all frames.

    Blind to motion: a frozen clip has a flat curve. The windows see that.
    """
    pooled = reference.flatten(0, 1)
    mean, std = pooled.mean(dim=0), pooled.std(dim=0).clamp_min(1e-6)
    standardised = [((features - mean) / std).unbind(dim=1) for features in (generated, reference, held_out)]
    return distance_curve(range(generated.shape[1]), *standardised)


def distance_curve(
    starts: Sequence[int],
    generated: Sequence[Features],
    reference: Sequence[Features],
    held_out: Sequence[Features],
) -> Curve:
    """Distances of sets of features, one set a place along the clip. starts: where each begins, from 0."""
    pairs = list(zip(generated, reference, held_out, strict=True))
    distance = tuple(frechet_distance(ours, theirs) for ours, theirs, _ in pairs)
    floor = tuple(frechet_distance(others, theirs) for _, theirs, others in pairs)
    return Curve(
        position=tuple(start + 1 for start in starts),
        distance=distance,
        floor=floor,
        slope=slope(np.asarray(starts, dtype=float), np.subtract(distance, floor)),
    )


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Of the line of least squares; 0 for a single point, which shows no drift."""
    centred = x - x.mean()
    spread = float((centred**2).sum())
    return float((centred * y).sum()) / spread if spread > 0 else 0.0
