"""Clips of a checkpoint beside real ones, as pictures of bytes: strips to look at, and film that a page can run."""

import io
import zipfile
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.records import DamagedRecordError
from pipeline.reporting.read import Checkpoint

GAP = 1  # pixels between frames of a strip
PAPER = 255


@dataclass(frozen=True)
class Samples:
    """uint8 (K, T, C, H, W) each: clips that show digits never trained on, and clips that were generated."""

    real: np.ndarray
    generated: np.ndarray


def read_samples(checkpoint: Checkpoint) -> Samples:
    """What the evaluation kept to be looked at.

    Raises:
        DamagedRecordError: samples.npz is missing, or is not what the evaluation writes.
    """
    path = checkpoint.measured.directory / "samples.npz"
    try:
        with np.load(path) as arrays:
            samples = Samples(arrays["real"], arrays["generated"])
    except OSError as error:
        raise DamagedRecordError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DamagedRecordError(f"{path} is damaged: {error}") from error
    for clips in (samples.real, samples.generated):
        if clips.ndim != 5 or clips.dtype != np.uint8:
            raise DamagedRecordError(f"{path} is damaged: clips must be uint8 (K, T, C, H, W), got {clips.shape}")
    return samples


def strip(clips: np.ndarray) -> np.ndarray:
    """A row a clip, a column a frame, a gap of light between: uint8 (height, width, 1 or 3)."""
    K, T, C, H, W = clips.shape
    canvas = np.full((K, H + GAP, T, W + GAP, C), PAPER, np.uint8)
    canvas[:, :H, :, :W] = clips.transpose(0, 3, 1, 4, 2)
    return canvas.reshape(K * (H + GAP), T * (W + GAP), C)[: -GAP or None, : -GAP or None]


def film(clips: np.ndarray) -> np.ndarray:
    """A row a frame, the clips side by side: shown one row at a time, it runs."""
    K, T, C, H, W = clips.shape
    canvas = np.full((T, H, K, W + GAP, C), PAPER, np.uint8)
    canvas[:, :, :, :W] = clips.transpose(1, 3, 0, 4, 2)
    return canvas.reshape(T * H, K * (W + GAP), C)[:, : -GAP or None]


def as_png(pixels: np.ndarray) -> bytes:
    """One byte of the file a pixel of the clip: whoever shows it magnifies it."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
