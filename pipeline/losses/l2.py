"""L2 on data: the weighted denoising loss. Minimises a forward KL."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Generator, nn

from pipeline.diffusion.denoising import denoising_loss
from pipeline.diffusion.schedule import Schedule
from pipeline.diffusion.weighting import PredictionL2, Weighting
from pipeline.interfaces import Rollout, Scalar, Video
from pipeline.models.denoiser import Denoiser
from pipeline.rules import above


@dataclass(frozen=True)
class L2:
    """|x0 - x0_hat|^2 under a weighting. Kingma & Gao, arXiv:2303.00848: a bound on the forward KL."""

    needs_target: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = False
    follows_flow: ClassVar[bool] = False
    needs_end_level: ClassVar[bool] = False
    divergence: ClassVar[str] = "forward KL"
    measure: ClassVar[str] = "forward KL of {denoised}, averaged over noise by the weighting"
    bounds_likelihood: ClassVar[bool] = True
    critic_updates: ClassVar[int] = 0
    weighting: Weighting = field(default_factory=PredictionL2)
    first_weight: float = 1.0  # of the first frame, the only one that a causal student makes from nothing

    def __post_init__(self) -> None:
        above(0, first_weight=self.first_weight)

    def critics(self, teacher: Denoiser | None) -> nn.Module:  # noqa: ARG002
        """No network beside the student."""
        return nn.Module()

    def student_loss(
        self,
        rollout: Rollout,
        clips: Video,  # noqa: ARG002
        critics: nn.Module,  # noqa: ARG002
        *,
        schedule: Schedule,
        rng: Generator,  # noqa: ARG002
    ) -> Scalar:
        """The denoising loss of the rollout against its target."""
        assert rollout.target is not None
        counts = torch.cat([self.first_weight * rollout.counts[:, :1], rollout.counts[:, 1:]], 1)
        return denoising_loss(
            rollout.x0_hat, rollout.target, rollout.t, schedule=schedule, weighting=self.weighting, counts=counts
        )
