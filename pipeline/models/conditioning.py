"""What the tokens of a frame are told beside its values, as vectors of the width of a backbone that add up."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.interfaces import Labels, NoiseLevel

MAX_RATE = 100.0  # radians of the fastest sinusoid over the levels from 0 to 1


class LevelEmbedding(nn.Module):
    """Sinusoids of the level t, then a small network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, t: NoiseLevel) -> Float[Tensor, "B T width"]:
        rate = torch.exp(torch.linspace(0, math.log(MAX_RATE), self.width // 2, device=t.device))
        phase = t[..., None] * rate
        return self.mlp(torch.cat([phase.cos(), phase.sin()], dim=-1))


class StepEmbedding(nn.Module):
    """How far a step goes, from the level of a frame down to where it ends; 0 before it is trained.

    Built of its own, after all else: a network without it loads into one that has it, which then answers alike.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.length = LevelEmbedding(width)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, length: NoiseLevel) -> Float[Tensor, "B T width"]:
        return self.out(self.length(length))


class ClassEmbedding(nn.Module):
    """A vector for each class, and one for none: a clip of which the class is not told."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_classes + 1, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, labels: Labels | None) -> Float[Tensor, "B 1 width"]:
        """The vectors of a batch, for all of its frames; of one clip without class where labels are None."""
        if labels is None:
            return self.table.weight[None, -1:]
        return self.table(labels)[:, None]
