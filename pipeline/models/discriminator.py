"""The discriminator: a logit a clip, at any noise level, from the features of a copy of the teacher."""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.diffusion.noise_levels import count_chunks
from pipeline.interfaces import Labels, NoiseLevel, Video
from pipeline.models.denoiser import Denoiser, network_input


class Discriminator(nn.Module):
    """C(x_t, t) -> logit, positive for data. A copy of the teacher's backbone with a head on its tokens.

    trains_features: whether the backbone learns too. Tokens of all frames are averaged after the head, so that
    every frame pulls at the logit.
    """

    def __init__(self, teacher: Denoiser, *, trains_features: bool = True) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(teacher.backbone).requires_grad_(trains_features)
        for unused in (self.backbone.head, self.backbone.head_modulation):
            unused.requires_grad_(False)
        self.schedule = teacher.spec.schedule
        width = teacher.spec.backbone.width
        self.head = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def given(self, labels: Labels) -> "Discriminator":
        """The same discriminator, told the classes of the clips that it is asked about; see Denoiser.given."""
        told = copy.copy(self)
        told._modules = {**self._modules, "backbone": self.backbone.given(labels)}  # a copy shares the dictionary
        return told

    def forward(self, x_t: Video, t: NoiseLevel) -> Float[Tensor, " B"]:
        tokens, _ = self.backbone.features(*network_input(x_t, self.schedule.at(t)))
        return self._logits(tokens).mean(dim=1)

    def beside(self, x_t: Video, t: NoiseLevel, context: Video) -> Float[Tensor, "B K"]:
        """A logit for each of the K chunks of x_t after the clean frames `context` of the chunks before it.

        Each judges a sample of its own, (context, chunk), whose log density ratio it tends to: an objective takes
        them one by one, and the mean comes after it.

        Raises:
            ValueError: attention is full, or the clips are not whole chunks.
        """
        chunk_len = self.backbone.spec.chunk_len
        num_chunks = count_chunks(x_t.shape[1], chunk_len)
        clean = network_input(context, self.schedule.at(torch.zeros_like(t)))
        tokens, _ = self.backbone.features_beside(*network_input(x_t, self.schedule.at(t)), *clean)
        return self._logits(tokens).unflatten(1, (num_chunks, -1)).mean(dim=2)

    def _logits(self, tokens: Tensor) -> Float[Tensor, "B N"]:
        return self.head(F.layer_norm(tokens, tokens.shape[-1:])).squeeze(-1)
