"""The network whose features the default FVD is computed on: a small 3-D conv net of the domain, frozen."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.interfaces import Video
from pipeline.models.files import load_network, save_network, weights_digest
from pipeline.rules import at_least

STEM = "clip_encoder"  # of the names of its files
GRID = (4, 2, 2)  # cells in time, y and x that the last maps are averaged over: coarse where and when
STEM_SIZE = 8  # positions a side, and frames, after the stem
NUM_GROUPS = 4


@dataclass(frozen=True)
class ClipEncoderSpec:
    """What the network is built from.

    num_frames: T. num_channels, frame_size: C, and H = W, of the frames; H a multiple of 8. width: half the
    channels of the stem. feature_dim: d. num_classes, num_corruptions: sizes of the two heads.
    """

    num_frames: int = 8
    num_channels: int = 1
    frame_size: int = 16
    width: int = 16
    feature_dim: int = 64
    num_classes: int = 10
    num_corruptions: int = 5

    def __post_init__(self) -> None:
        at_least(2, num_frames=self.num_frames)
        if self.frame_size < STEM_SIZE or self.frame_size % STEM_SIZE:
            raise ValueError(f"frame_size must be a multiple of {STEM_SIZE}, got {self.frame_size}")
        if self.width < 2 or self.width % 2:
            raise ValueError(f"width must be even and at least 2, got {self.width}")


class ClipEncoder(nn.Module):
    """Clips to d features that know what moves, where, how fast, and how spoilt it is.

    `mean` and `std` are those of the features of a reference set; `forward` gives features in their units.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ClipEncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        C, width, d = spec.num_channels, spec.width, spec.feature_dim
        patch, pace = spec.frame_size // STEM_SIZE, max(1, spec.num_frames // STEM_SIZE)
        self.trunk = nn.Sequential(
            nn.Conv3d(C, 2 * width, (3, patch + 2, patch + 2), stride=(pace, patch, patch), padding=1),
            nn.GroupNorm(NUM_GROUPS, 2 * width),
            nn.SiLU(),
            *_block(2 * width, 4 * width, stride=2),
            *_block(4 * width, 4 * width, stride=1),
            nn.AdaptiveAvgPool3d(GRID),
            nn.Flatten(),
            nn.Linear(4 * width * GRID[0] * GRID[1] * GRID[2], d),
        )
        self.class_head = nn.Linear(d, spec.num_classes)
        self.position_head = nn.Linear(d, 2 * spec.num_frames)
        self.velocity_head = nn.Linear(d, 2 * spec.num_frames)
        self.corruption_head = nn.Linear(d, spec.num_corruptions)
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("std", torch.ones(d))

    def raw_features(self, video: Video) -> Float[Tensor, "B D"]:
        """Features before they are standardised.

        Raises:
            ValueError: the clips have another shape than the network is built for.
        """
        spec = self.spec
        expected = (spec.num_frames, spec.num_channels, spec.frame_size, spec.frame_size)
        if tuple(video.shape[1:]) != expected:
            raise ValueError(f"clips must be (T, C, H, W) = {expected}, got {tuple(video.shape[1:])}")
        return self.trunk(((video + 1) / 2).transpose(1, 2))  # padding is then black

    def forward(self, video: Video) -> Float[Tensor, "B D"]:
        """Features, standardised by the reference set."""
        return (self.raw_features(video) - self.mean) / self.std

    def label_predictions(self, features: Float[Tensor, "B D"]) -> dict[str, Tensor]:
        """From raw features: class logits (B, K), position and velocity, standardised, (B, 2T) each."""
        hidden = F.silu(features)
        return {
            "class": self.class_head(hidden),
            "position": self.position_head(hidden),
            "velocity": self.velocity_head(hidden),
        }

    def corruption_strengths(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """From raw features: by how much each kind of corruption was applied, 0 = not at all."""
        return self.corruption_head(F.silu(features))


def _block(num_in: int, num_out: int, *, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv3d(num_in, num_out, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.GroupNorm(NUM_GROUPS, num_out), nn.SiLU()


def save_clip_encoder(encoder: ClipEncoder, directory: Path, facts: dict[str, object]) -> None:
    """Write clip_encoder.safetensors and clip_encoder.json: what to build, and `facts` about its training."""
    save_network(encoder, directory, STEM, {"spec": dataclasses.asdict(encoder.spec), **facts})


def load_clip_encoder(directory: Path) -> ClipEncoder:
    """The encoder of a directory, frozen, in evaluation mode.

    Raises:
        FileNotFoundError: no encoder was saved there.
    """

    def build(description: dict[str, Any]) -> ClipEncoder:
        return ClipEncoder(ClipEncoderSpec(**description["spec"]))

    return load_network(directory, STEM, build).eval().requires_grad_(False)


def clip_encoder_digest(directory: Path) -> str:
    """sha256 of the encoder's weights, the reference set's statistics among them."""
    return weights_digest(directory, STEM)
