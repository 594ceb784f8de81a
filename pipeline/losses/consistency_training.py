"""Consistency training: one frame of data with one noise at two levels stands for two points of one path."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Generator, nn

from pipeline.diffusion.flow_map import Discretisation
from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.interfaces import Rollout, Scalar, Video
from pipeline.losses.consistency import check_comparison, compare, draw_upper, moved
from pipeline.models.denoiser import Denoiser
from pipeline.streams import noise_like


@dataclass(frozen=True)
class ConsistencyTraining:
    """Both points of a pair from one frame of data with one noise. arXiv:2303.01469, algorithm 3.

    As improved since, arXiv:2310.14189: no moving average, the pseudo-Huber metric, a grid that doubles. Its
    weights are inverse_step, its law of levels `visits` of the grid; with both, EDM's spacing is meant.
    """

    needs_target: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = False
    follows_flow: ClassVar[bool] = False
    needs_end_level: ClassVar[bool] = False
    divergence: ClassVar[str] = "none: regression of the data's flow map"
    measure: ClassVar[str] = "no divergence, but a regression of the data's flow map, of {denoised}"
    bounds_likelihood: ClassVar[bool] = False
    critic_updates: ClassVar[int] = 0
    grid: Discretisation = field(default_factory=lambda: Discretisation(161, "doubling", 11))
    metric: str = "pseudo_huber"
    weight: str = "uniform"

    def __post_init__(self) -> None:
        check_comparison(self.grid, self.metric, self.weight)

    def at_progress(self, progress: float) -> "ConsistencyTraining":
        """The loss as it is after this share of a run."""
        return dataclasses.replace(self, grid=self.grid.at_progress(progress))

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
        rng: Generator,
    ) -> Scalar:
        """The frames of data noised to both levels alike."""
        assert rollout.target is not None
        eps = noise_like(rollout.target, rng)
        pair, x_t = draw_upper(self.grid, rollout, rollout.target, eps, schedule=schedule, rng=rng)
        x_next = torch.where(moved(rollout), add_noise(schedule, rollout.target, eps, pair.t_next), rollout.x_t)
        return compare(
            rollout, pair, x_t, x_next, schedule=schedule, metric=self.metric, weight=self.weight, rng=rng
        )
