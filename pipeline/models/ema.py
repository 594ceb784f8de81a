"""The exponential moving average of a student's weights: what is evaluated."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

from pipeline.rules import within

Student = TypeVar("Student", bound=nn.Module)


class Ema(Generic[Student]):
    """average <- d average + (1 - d) weights, once a student update.

    d = min(decay, (1 + step) / (10 + step)), so that a short run does not average in its initial weights.
    """

    def __init__(self, student: Student, decay: float) -> None:
        within(0, 1, open_high=True, ema_decay=decay)
        self.decay = decay
        self.average: Student = copy.deepcopy(student).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, student: Student, step: int) -> None:
        """Take the weights after student update number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, weight in zip(self.average.parameters(), student.parameters(), strict=True):
            average.lerp_(weight, 1 - decay)
