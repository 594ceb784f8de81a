"""The network that reads the digit in a single frame: frozen, it judges identity and gives features of frames."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.files import load_network, save_network, weights_digest
from pipeline.rules import at_least

NUM_CLASSES = 10
STEM = "digit_reader"  # of the names of its files
GRID = 2  # cells a side that features are averaged over, so that they know roughly where things are

Frames = Float[Tensor, "N C H W"]  # pixels in [-1, 1]


@dataclass(frozen=True)
class DigitReaderSpec:
    """What the network is built from.

    num_channels: C of the frames. width: channels of the first layers. feature_dim: d.
    """

    num_channels: int = 1
    width: int = 16
    feature_dim: int = 32

    def __post_init__(self) -> None:
        at_least(1, num_channels=self.num_channels, width=self.width, feature_dim=self.feature_dim)


class DigitReader(nn.Module):
    """A 2-D conv net, averaged over a 2x2 grid and maximised over the frame, with heads for class and place."""

    def __init__(self, spec: DigitReaderSpec) -> None:
        super().__init__()
        self.spec = spec
        C, width = spec.num_channels, spec.width
        self.trunk = nn.Sequential(
            _block(C, width, kernel=3, stride=1),
            _block(width, width, kernel=4, stride=2),
            _block(width, 2 * width, kernel=3, stride=1),
            _block(2 * width, 2 * width, kernel=4, stride=2),
            _block(2 * width, 4 * width, kernel=3, stride=1),
        )
        self.project = nn.Linear(4 * width * (GRID**2 + 1), spec.feature_dim)
        self.class_head = nn.Linear(spec.feature_dim, NUM_CLASSES)
        self.place_head = nn.Linear(spec.feature_dim, 2)

    def features(self, frames: Frames) -> Float[Tensor, "N D"]:
        """What the heads see; the features of the Fréchet distance between frames."""
        maps = self.trunk((frames + 1) / 2)
        pooled = [F.adaptive_avg_pool2d(maps, GRID).flatten(1), maps.amax(dim=(2, 3))]
        return self.project(torch.cat(pooled, dim=1))

    def class_logits(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Logits of the ten classes, from features."""
        return self.class_head(F.silu(features))

    def places(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N 2"]:
        """Centre of mass (y, x), each in [-1, 1] across the frame, from features."""
        return self.place_head(F.silu(features))

    def read(self, frames: Frames) -> Int64[Tensor, " N"]:
        """The most probable class of each frame."""
        return self.class_logits(self.features(frames)).argmax(dim=1)


def _block(num_in: int, num_out: int, *, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(num_in, num_out, kernel, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(num_out), nn.SiLU())


def save_digit_reader(reader: DigitReader, directory: Path, facts: dict[str, object]) -> None:
    """Write digit_reader.safetensors and digit_reader.json: what to build, and `facts` about its training."""
    save_network(reader, directory, STEM, {"spec": dataclasses.asdict(reader.spec), **facts})


def load_digit_reader(directory: Path) -> DigitReader:
    """The reader of a directory, frozen, in evaluation mode.

    Raises:
        FileNotFoundError: no reader was saved there.
    """

    def build(description: dict[str, Any]) -> DigitReader:
        return DigitReader(DigitReaderSpec(**description["spec"]))

    return load_network(directory, STEM, build).eval().requires_grad_(False)


def digit_reader_digest(directory: Path) -> str:
    """sha256 of the reader's weights."""
    return weights_digest(directory, STEM)
