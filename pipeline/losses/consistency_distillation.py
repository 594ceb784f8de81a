"""Consistency distillation: the teacher says which two points lie on one path of the probability flow."""

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Generator

from pipeline.diffusion.flow_map import SOLVERS, Discretisation
from pipeline.diffusion.schedule import Schedule
from pipeline.interfaces import Rollout, Scalar, Video
from pipeline.losses.consistency import check_comparison, compare, draw_upper
from pipeline.losses.scores import real_score
from pipeline.models.denoiser import Denoiser
from pipeline.rules import one_of
from pipeline.streams import noise_like


@dataclass(frozen=True)
class ConsistencyDistillation:
    """Both points of a pair on one path of the teacher's flow. arXiv:2303.01469, algorithm 2.

    The target is the student itself, its gradient stopped, and no moving average of it: arXiv:2310.14189, section
    3.2. Frames that run free are as good as data here: any noised frame is on a path of the teacher, and the
    teacher says where it leads. It says so in the context of the student: a path under full attention turns with
    frames that a causal student does not see, which has no single answer. Causal Forcing, arXiv:2602.02214.
    """

    needs_target: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    follows_flow: ClassVar[bool] = True
    needs_end_level: ClassVar[bool] = False
    divergence: ClassVar[str] = "none: regression of the teacher's flow map"
    measure: ClassVar[str] = "no divergence, but a regression of the teacher's flow map, of {denoised}"
    bounds_likelihood: ClassVar[bool] = False
    critic_updates: ClassVar[int] = 0
    grid: Discretisation = field(default_factory=Discretisation)
    solver: str = "heun"  # of the step from the upper to the lower point
    metric: str = "l2"
    weight: str = "uniform"

    def __post_init__(self) -> None:
        one_of(SOLVERS, solver=self.solver)
        check_comparison(self.grid, self.metric, self.weight)

    def at_progress(self, progress: float) -> "ConsistencyDistillation":
        """The loss as it is after this share of a run."""
        return dataclasses.replace(self, grid=self.grid.at_progress(progress))

    def critics(self, teacher: Denoiser | None) -> Denoiser:
        """The teacher, frozen."""
        assert teacher is not None
        return real_score(teacher)

    def student_loss(
        self,
        rollout: Rollout,
        clips: Video,  # noqa: ARG002
        critics: Denoiser,
        *,
        schedule: Schedule,
        rng: Generator,
    ) -> Scalar:
        """The rollout's frames noised to the upper levels, and from there a step of the teacher."""
        x0 = rollout.x0_hat.detach() if rollout.target is None else rollout.target
        pair, x_t = draw_upper(self.grid, rollout, x0, noise_like(x0, rng), schedule=schedule, rng=rng)
        with torch.no_grad():
            x_next = SOLVERS[self.solver](
                schedule, x_t, pair.t, pair.t_next, partial(rollout.in_context, critics), rng
            )
        return compare(
            rollout, pair, x_t, x_next, schedule=schedule, metric=self.metric, weight=self.weight, rng=rng
        )
