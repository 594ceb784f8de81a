"""Networks that turn clips into the features of a distance between videos: ours, and an I3D that the user gives."""

import hashlib
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from torch import Tensor

from pipeline.evaluation.frechet import Features
from pipeline.models.clip_encoder import clip_encoder_digest, load_clip_encoder

I3D_DIM = 400
I3D_SHORTEST = 9  # frames; below, its last pooling has nothing to pool
I3D_BATCH = 16
CLIP_BATCH = 256

ByteVideo = UInt8[Tensor, "_ _ C H W"]  # (N, T, C, H, W), pixels in [0, 255], as all clips are compared


@runtime_checkable
class VideoFeatures(Protocol):
    """Clips uint8 (N, T, C, H, W) -> features float64 (N, dim), by a network whose weights have a sha256."""

    @property
    def name(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def digest(self) -> str: ...

    def __call__(self, clips: ByteVideo) -> Features: ...


class InDomainFeatures:
    """The clip encoder that the stage "features" trained, in units of the reference set."""

    name = "in_domain"

    def __init__(self, directory: Path) -> None:
        self.encoder = load_clip_encoder(directory)
        self.dim = self.encoder.spec.feature_dim
        self.num_frames = self.encoder.spec.num_frames
        self.digest = clip_encoder_digest(directory)

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Features:
        """Clips must have `num_frames` frames. Raises ValueError: another shape, or not uint8."""
        check_bytes(clips)
        return torch.cat([self.encoder(as_pixels(part)).double() for part in clips.split(CLIP_BATCH)])


class TorchScriptI3D:
    """The 400 logits of an I3D in TorchScript, by StyleGAN-V's protocol (arXiv:2112.14683, metric fvd2048_16f).

    The module rescales from [0, 255] and resizes to 224 x 224 by itself. Numbers are comparable only with equal
    checksum, number of clips and number of frames.

    Args:
        path: the TorchScript file.
        sha256: what its checksum must be; None takes any, and `digest` says which it is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another checksum, or is no TorchScript module.
    """

    name = "i3d"
    dim = I3D_DIM

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 is not None and self.digest != sha256.lower():
            raise ValueError(f"the I3D must have the given sha256: {path} has {self.digest}, not {sha256}")
        try:
            self.network = torch.jit.load(str(path), map_location="cpu").eval()
        except RuntimeError as error:
            raise ValueError(f"the I3D must be a TorchScript module: {path}: {first_line(error)}") from error

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Features:
        """Raises ValueError: not uint8, fewer than 9 frames, not 1 or 3 channels, or features of another size."""
        check_bytes(clips)
        T, C = clips.shape[1:3]
        if T < I3D_SHORTEST:
            raise ValueError(f"I3D needs clips of at least {I3D_SHORTEST} frames, got {T}")
        if C not in (1, 3):
            raise ValueError(f"I3D needs 1 or 3 channels, got {C}")
        coloured = clips.expand(-1, -1, 3, -1, -1).transpose(1, 2)
        parts = [
            self.network(part.float(), rescale=True, resize=True, return_features=True).double()
            for part in coloured.split(I3D_BATCH)
        ]
        features = torch.cat(parts)
        if features.shape != (len(clips), I3D_DIM):
            raise ValueError(f"I3D must give {I3D_DIM} features a clip, got shape {tuple(features.shape)}")
        return features


def check_bytes(clips: Tensor) -> None:
    """Raises ValueError unless clips are uint8 (N, T, C, H, W): both sides of a distance must be rounded alike."""
    if clips.dtype != torch.uint8 or clips.ndim != 5:
        raise ValueError(f"clips must be (N, T, C, H, W) of uint8, got {clips.dtype} of shape {tuple(clips.shape)}")


def as_pixels(clips: Tensor) -> Tensor:
    """uint8 [0, 255] -> float32 [-1, 1], any shape, as networks see them."""
    return clips.float().div_(127.5).sub_(1.0)


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
