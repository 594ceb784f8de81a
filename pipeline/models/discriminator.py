"""The discriminator: a logit a clip, at any noise level, from the features of a copy of the teacher."""

import copy

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.interfaces import NoiseLevel, Video
from pipeline.models.denoiser import Denoiser, network_input


class Discriminator(nn.Module):
    """C(x_t, t) -> logit, positive for data. A trainable copy of the teacher's backbone with a head on its tokens.

    Tokens of all frames are averaged after the head, so that every frame pulls at the logit.
    """

    def __init__(self, teacher: Denoiser) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(teacher.backbone).requires_grad_(True)
        for unused in (self.backbone.head, self.backbone.head_modulation):
            unused.requires_grad_(False)
        self.schedule = teacher.spec.schedule
        width = teacher.spec.backbone.width
        self.head = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, x_t: Video, t: NoiseLevel) -> Float[Tensor, " B"]:
        tokens, _ = self.backbone.features(*network_input(x_t, self.schedule.at(t)))
        return self.head(F.layer_norm(tokens, tokens.shape[-1:])).mean(dim=(1, 2))
