"""The frame autoencoder: a picture a frame to few latents and back, standardised by channel; or none at all."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.interfaces import Video
from pipeline.models.files import load_network, save_network
from pipeline.rules import at_least

BLACK = -1.0
STEM = "codec"  # of the names of its files

Latents = Float[Tensor, "B T c h w"]
Frames = Float[Tensor, "N C H W"]
LatentFrames = Float[Tensor, "N c h w"]


@dataclass(frozen=True)
class CodecSpec:
    """Sizes of the networks.

    latent_channels: of a latent frame. downsample: pixels a side that become one latent position. width: channels
    at twice the latent resolution; there are twice as many at the latent resolution. global_width: hidden units of
    the dense path that sees the frame as a whole, beside the convolutions. content_channels: the first so many
    channels hold what stays the same in a clip, the others where it is, spread linearly from place_size numbers, so
    few that they can say no more; 0: no such split. Content and pose: DrNet, arXiv:1705.10915.
    """

    latent_channels: int = 4
    downsample: int = 4
    width: int = 32
    global_width: int = 384
    content_channels: int = 3
    place_size: int = 4

    def __post_init__(self) -> None:
        at_least(1, latent_channels=self.latent_channels, place_size=self.place_size)
        at_least(1, width=self.width, global_width=self.global_width)
        if self.downsample < 2 or self.downsample % 2:
            raise ValueError(f"downsample must be even and at least 2, got {self.downsample}")
        if not 0 <= self.content_channels < self.latent_channels:
            raise ValueError(
                f"content_channels must be below latent_channels: content_channels={self.content_channels}, "
                f"latent_channels={self.latent_channels}"
            )


def latent_shape(spec: CodecSpec | None, frame_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(c, h, w) of a latent frame, for frames of (C, H, W); without a codec the same.

    Raises:
        ValueError: the frame cannot be divided.
    """
    if spec is None:
        return frame_shape
    _, H, W = frame_shape
    if H % spec.downsample or W % spec.downsample:
        raise ValueError(f"frame size must be a multiple of downsample: {H}x{W}, downsample={spec.downsample}")
    return spec.latent_channels, H // spec.downsample, W // spec.downsample


@runtime_checkable
class FrameCodec(Protocol):
    """What the rest of the library knows of a codec, a frozen nn.Module: each frame by itself."""

    frame_shape: tuple[int, int, int]
    latent_shape: tuple[int, int, int]

    def encode(self, video: Video) -> Latents:
        """Pixels in [-1, 1] (B, T, C, H, W) -> latents (B, T, c, h, w), standardised over the training clips."""
        ...

    def decode(self, latents: Latents) -> Video:
        """Latents (B, T, c, h, w) -> pixels, clipped to [-1, 1] (B, T, C, H, W)."""
        ...


class Codec(nn.Module):
    """Convolutions, and beside them a dense path that sees the frame as a whole.

    The decoder works on standardised latents: while training, by the statistics of the batch, afterwards by `mean`
    and `std` of all training clips, by channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: CodecSpec, frame_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.spec, self.frame_shape = spec, frame_shape
        self.latent_shape = latent_shape(spec, frame_shape)
        self.encoder = Encoder(spec, frame_shape)
        self.decoder = Decoder(spec, frame_shape)
        self.register_buffer("mean", torch.zeros(spec.latent_channels, 1, 1))
        self.register_buffer("std", torch.ones(spec.latent_channels, 1, 1))

    def encode(self, video: Video) -> Latents:
        """See FrameCodec."""
        return (self.encoder(video.flatten(0, 1)).unflatten(0, video.shape[:2]) - self.mean) / self.std

    def decode(self, latents: Latents) -> Video:
        """See FrameCodec."""
        return self.decoder(latents.flatten(0, 1)).unflatten(0, latents.shape[:2]).clamp(-1, 1)


class PixelCodec(nn.Module):
    """No codec: the latents are the pixels, standardised by channel, and the way back is exact to rounding."""

    mean: Tensor
    std: Tensor

    def __init__(self, frame_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.frame_shape = self.latent_shape = frame_shape
        self.register_buffer("mean", torch.zeros(frame_shape[0], 1, 1))
        self.register_buffer("std", torch.ones(frame_shape[0], 1, 1))

    def encode(self, video: Video) -> Latents:
        """See FrameCodec."""
        return (video - self.mean) / self.std

    def decode(self, latents: Latents) -> Video:
        """See FrameCodec."""
        return (latents * self.std + self.mean).clamp(-1, 1)


class Encoder(nn.Module):
    """Frames (N, C, H, W) -> latents (N, c, h, w) of any scale."""

    def __init__(self, spec: CodecSpec, frame_shape: tuple[int, int, int]) -> None:
        super().__init__()
        C, width, patch = frame_shape[0], spec.width, spec.downsample // 2
        self.latent_shape = latent_shape(spec, frame_shape)
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(patch),
            nn.Conv2d(C * patch**2, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.SiLU(),
        )
        area = self.latent_shape[1] * self.latent_shape[2]
        num_latents, self.num_content = spec.latent_channels * area, spec.content_channels * area
        num_told = self.num_content + spec.place_size if self.num_content else num_latents
        self.whole = GatedDense(2 * width * area, spec.global_width, num_told)
        if self.num_content:
            self.spread = nn.Linear(spec.place_size, num_latents - self.num_content)
        else:
            self.local = nn.Conv2d(2 * width, spec.latent_channels, 1)

    def forward(self, frames: Frames) -> LatentFrames:
        features = self.trunk(frames - BLACK)  # zero, with which convolutions pad, is black
        told = self.whole(features.flatten(1))
        if not self.num_content:
            return self.local(features) + told.unflatten(1, self.latent_shape)
        content, place = told.tensor_split((self.num_content,), dim=1)
        return torch.cat([content, self.spread(place)], dim=1).unflatten(1, self.latent_shape)


class Decoder(nn.Module):
    """Standardised latents (N, c, h, w) -> frames (N, C, H, W), not clipped."""

    def __init__(self, spec: CodecSpec, frame_shape: tuple[int, int, int]) -> None:
        super().__init__()
        C, width, patch = frame_shape[0], spec.width, spec.downsample // 2
        latents = latent_shape(spec, frame_shape)
        self.feature_shape = (2 * width, *latents[1:])
        self.local = nn.Conv2d(spec.latent_channels, 2 * width, 3, padding=1)
        self.whole = GatedDense(math.prod(latents), spec.global_width, math.prod(self.feature_shape))
        self.rise = nn.Sequential(
            nn.SiLU(), nn.Conv2d(2 * width, 4 * width, 3, padding=1), nn.SiLU(), nn.PixelShuffle(2)
        )
        self.refine = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 1))
        self.paint = nn.Sequential(nn.SiLU(), nn.Conv2d(width, C * patch**2, 3, padding=1), nn.PixelShuffle(patch))

    def forward(self, latents: LatentFrames) -> Frames:
        features = self.local(latents) + self.whole(latents.flatten(1)).unflatten(1, self.feature_shape)
        features = self.rise(features)
        return self.paint(features + self.refine(features)) + BLACK


class GatedDense(nn.Module):
    """Two paths multiplied: to draw this thing at that place is a product, which plain layers learn slowly."""

    def __init__(self, num_in: int, width: int, num_out: int) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(num_in, width), nn.Linear(num_in, width)
        self.scale, self.mix = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, num_out)

    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        gated = self.value(x) * self.scale(F.silu(self.gate(x)))
        return self.out(F.silu(self.mix(gated)))


def new_codec(spec: CodecSpec | None, frame_shape: tuple[int, int, int]) -> Codec | PixelCodec:
    """An untrained codec; without a spec, none. Weights come from torch's global generator."""
    return PixelCodec(frame_shape) if spec is None else Codec(spec, frame_shape)


def save_codec(codec: Codec | PixelCodec, directory: Path) -> None:
    """Write codec.safetensors, and codec.json: what to build, and whose weights, so that it names these latents."""
    description = {
        "spec": dataclasses.asdict(codec.spec) if isinstance(codec, Codec) else None,
        "frame_shape": codec.frame_shape,
        "latent_shape": codec.latent_shape,
    }
    save_network(codec, directory, STEM, description, with_checksum=True)


def load_codec(directory: Path) -> Codec | PixelCodec:
    """The codec of a directory, frozen, in evaluation mode.

    Raises:
        FileNotFoundError: no codec was saved there.
        ValueError: the weights are not those of codec.json.
    """

    def build(description: dict[str, Any]) -> Codec | PixelCodec:
        spec, (C, H, W) = description["spec"], description["frame_shape"]
        return new_codec(None if spec is None else CodecSpec(**spec), (C, H, W))

    return load_network(directory, STEM, build).eval().requires_grad_(False)
