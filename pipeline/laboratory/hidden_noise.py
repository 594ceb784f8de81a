"""A sampler with an error of its own: noise on finished frames, of which the student is not told."""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Generator

from pipeline.diffusion.schedule import Schedule
from pipeline.diffusion.trajectory import Renoise
from pipeline.interfaces import Denoise, NoiseLevel, Video
from pipeline.rules import at_least
from pipeline.streams import noise_like


@dataclass(frozen=True)
class HiddenNoise:
    """A step of few-step students, and std times noise on every frame that it finishes.

    It stands for what a real sampler leaves: frames of data do not have it, frames that a student made do.
    """

    num_calls: ClassVar[int] = 1
    std: float = 0.0
    step: Renoise = field(default_factory=Renoise)

    def __post_init__(self) -> None:
        at_least(0, std=self.std)

    def __call__(
        self, schedule: Schedule, x_t: Video, t: NoiseLevel, t_next: NoiseLevel, denoise: Denoise, rng: Generator
    ) -> Video:
        """The frames at t_next. Raises ValueError where t_next is above t."""
        x = self.step(schedule, x_t, t, t_next, denoise, rng)
        finished = ((t_next == 0) & (t > 0))[:, :, None, None, None]
        return x + self.std * noise_like(x, rng) * finished
