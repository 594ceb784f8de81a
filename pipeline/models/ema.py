"""The exponential moving average of a student's weights: what is evaluated."""

import copy

import torch
from torch import nn


class Ema:
    """average <- d average + (1 - d) weights, once a student update.

    d = min(decay, (1 + step) / (10 + step)), so that a short run does not average in its initial weights.
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self.average = copy.deepcopy(student).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, student: nn.Module, step: int) -> None:
        """Take the weights after student update number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.parameters()), list(student.parameters()), 1 - decay)
