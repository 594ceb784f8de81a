"""What a codec loses on held-out clips, and how hard its latents are to model."""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.data.contact_sheet import contact_sheet
from pipeline.data.store import ClipStore, one_of_each, to_uint8, to_video
from pipeline.models.codec import Codec, Latents, PixelCodec
from pipeline.models.digit_reader import DigitReader

ENCODED_AT_ONCE = 256  # clips
HELDOUT_STRIDE = 4  # of the frames of the test clips, every so many are measured
MAX_PIXEL = 255.0


@torch.no_grad()
def measure(codec: Codec | PixelCodec, reader: DigitReader, store: ClipStore) -> dict[str, Any]:
    """What is lost on test clips, whose digits were never trained on; pixels rounded to 8 bits on both sides."""
    frames = store.clips("test")[:, ::HELDOUT_STRIDE]
    video = to_video(frames)
    decoded = to_uint8(torch.cat([codec.decode(codec.encode(part)) for part in video.split(ENCODED_AT_ONCE)]))
    read, read_decoded = (
        torch.cat([reader.read(part.flatten(0, 1)) for part in pixels.split(ENCODED_AT_ONCE)])
        for pixels in (video, to_video(decoded))
    )
    digits = torch.from_numpy(store.labels("test")["class"][:, 0]).repeat_interleave(frames.shape[1])
    shares = {
        "read_agreement": read_decoded == read,
        "read_accuracy": read_decoded == digits,
        "read_accuracy_originals": read == digits,
    }
    return {
        "psnr": None if isinstance(codec, PixelCodec) else round(psnr(np.asarray(frames), decoded), 4),
        **{name: round(share.float().mean().item(), 6) for name, share in shares.items()},
    }


def describe_latents(latents: Latents) -> dict[str, float]:
    """How hard latents are to model: mean squared step between frames (2 = unrelated frames), effective dimension.

    The effective dimension of frames is (sum of eigenvalues)^2 / sum of their squares, of the covariance.
    """
    flat = latents[:: max(1, len(latents) // 2_000)].flatten(2)
    covariance = torch.cov(flat.flatten(0, 1).double().T)
    dimension = covariance.trace().square() / covariance.square().sum()
    return {
        "latent_step": round(flat.diff(dim=1).square().mean().item(), 6),
        "latent_dimension": round(dimension.item(), 3),
    }


def psnr(originals: np.ndarray, decoded: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pixels: 10 log10(255^2 / mean squared error); not of equal ones."""
    error = np.mean((originals.astype(np.float32) - decoded.astype(np.float32)) ** 2)
    return 10 * math.log10(MAX_PIXEL**2 / float(error))


@torch.no_grad()
def draw_reconstructions(codec: Codec | PixelCodec, store: ClipStore) -> Image.Image:
    """Test clips above what the codec makes of them, one of each class."""
    frames, labels = store.clips("test"), store.labels("test")
    chosen = np.asarray(frames[one_of_each(labels, len(frames), 10)][:, : store.manifest["num_frames"]])
    decoded = to_uint8(codec.decode(codec.encode(to_video(chosen))))
    rows = [row for pair in zip(chosen, decoded, strict=True) for row in pair]
    shape = "x".join(str(size) for size in codec.latent_shape)
    title = f"held-out clips, and each through latents of {shape} a frame"
    return contact_sheet(rows, ["original", "decoded"] * len(chosen), title)
