"""What a method is to the training loop."""

from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from torch import Generator

from pipeline.diffusion.schedule import Schedule
from pipeline.interfaces import Rollout, Video
from pipeline.models.denoiser import Denoiser


@runtime_checkable
class Method(Protocol):
    """A frozen dataclass of hyper-parameters that turns a batch of clips into a rollout of the student."""

    provides_target: ClassVar[bool]
    attention: ClassVar[str]  # of its student: causal or full
    teacher: ClassVar[str]  # which judges the law of its student's frames: causal or bidirectional
    denoised: ClassVar[str]  # the law that its student's denoiser is asked about

    @property
    def judged(self) -> str:
        """The frames whose law a loss on distributions compares with data."""
        ...

    def rollout(self, student: Denoiser, clips: Video, *, schedule: Schedule, rng: Generator) -> Rollout: ...


@runtime_checkable
class StoredMethod(Method, Protocol):
    """A method whose clips are trajectories of a teacher, and not data."""

    def read(self, directory: Path, *, latents: str, schedule: Schedule) -> Video:
        """Its clips. Raises ValueError where they do not fit a student of these latents and this schedule."""
        ...
