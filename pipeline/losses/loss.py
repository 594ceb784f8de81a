"""What a loss is to the training loop."""

from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Generator, nn

from pipeline.diffusion.schedule import Schedule
from pipeline.interfaces import Rollout, Scalar, Video
from pipeline.models.denoiser import Denoiser


@runtime_checkable
class Loss(Protocol):
    """A frozen dataclass of hyper-parameters that judges a rollout; it owns every network beside the student."""

    needs_target: ClassVar[bool]
    needs_teacher: ClassVar[bool]
    follows_flow: ClassVar[bool]  # it regresses the teacher's flow, which a student must be able to follow
    needs_end_level: ClassVar[bool]  # it asks its student for steps that end at any level
    divergence: ClassVar[str]  # that the sources claim for it
    bounds_likelihood: ClassVar[bool]  # what it trains is a denoiser at every level, whose bound on a clip is meant

    @property
    def measure(self) -> str:
        """What it minimises, derived, as a template of one clause.

        `{judged}` stands for the frames whose law it compares with data, `{denoised}` for what a denoiser of the
        method is asked about: pipeline/methods/method.py says both. A property where a parameter decides.
        """
        ...

    @property
    def critic_updates(self) -> int:
        """Critic updates for each student update, each on a fresh rollout."""
        ...

    def critics(self, teacher: Denoiser | None) -> nn.Module: ...

    def student_loss(
        self, rollout: Rollout, clips: Video, critics: Any, *, schedule: Schedule, rng: Generator
    ) -> Scalar: ...


@runtime_checkable
class StagedLoss(Loss, Protocol):
    """A loss that changes in the course of a run."""

    def at_progress(self, progress: float) -> Loss:
        """The loss as it is after this share of the run, in [0, 1)."""
        ...


@runtime_checkable
class CriticLoss(Loss, Protocol):
    """A loss with networks of its own to train."""

    def critic_loss(
        self, rollout: Rollout, clips: Video, critics: Any, *, schedule: Schedule, rng: Generator
    ) -> Scalar: ...
