"""PaGoDA: frames of data, taken up the teacher's flow to noise, that the student must restore; and an adversary."""

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Generator, nn

from pipeline.diffusion.flow_map import SOLVERS, noisy_end
from pipeline.diffusion.schedule import Schedule
from pipeline.interfaces import Rollout, Scalar, Video
from pipeline.losses.gan import Gan
from pipeline.losses.kd import regression
from pipeline.losses.scores import real_score
from pipeline.models.denoiser import Denoiser
from pipeline.models.discriminator import Discriminator
from pipeline.rules import at_least, one_of


class PagodaCritics(nn.Module):
    """The teacher, frozen, and the adversary's own network, which learns."""

    def __init__(self, teacher: Denoiser, adversary: Discriminator) -> None:
        super().__init__()
        self.real = real_score(teacher)
        self.adversary = adversary


@dataclass(frozen=True)
class Pagoda:
    """|x - G(E(x))|^2 + gan_weight times an adversary's loss. PaGoDA, arXiv:2405.14822, section 3.

    E takes data up the teacher's flow to the levels of the rollout, G is the student. Unlike the
    regression of trajectories its targets are data, so that the teacher's errors are not learnt. The teacher is
    asked in the context of the student, the adversary about the law of its frames.
    """

    needs_target: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True
    follows_flow: ClassVar[bool] = True
    needs_end_level: ClassVar[bool] = False
    divergence: ClassVar[str] = "reconstruction, and Jensen-Shannon of its adversary"
    bounds_likelihood: ClassVar[bool] = False
    num_steps: int = 8  # up the teacher's flow, each of t / num_steps
    solver: str = "heun"  # euler is DDIM inversion itself, whose error is of first order
    gan_weight: float = 0.1
    gan: Gan = field(default_factory=lambda: Gan(objective="saturating"))  # the paper's log(1 - D)

    def __post_init__(self) -> None:
        at_least(1, num_steps=self.num_steps)
        one_of(SOLVERS, solver=self.solver)
        at_least(0, gan_weight=self.gan_weight)

    @property
    def critic_updates(self) -> int:
        """Those of the adversary."""
        return self.gan.critic_updates

    @property
    def measure(self) -> str:
        """The adversary's objective is a part of it."""
        flow = "a regression of the inverse of the teacher's flow, of {denoised}"
        return f"{flow}, and {self.gan_weight:g} times the {self.gan.measure}"

    def critics(self, teacher: Denoiser | None) -> PagodaCritics:
        """The teacher, and the adversary's own network."""
        assert teacher is not None
        return PagodaCritics(teacher, self.gan.critics(teacher))

    def student_loss(
        self, rollout: Rollout, clips: Video, critics: PagodaCritics, *, schedule: Schedule, rng: Generator
    ) -> Scalar:
        """Reconstruction from the inverted data; the adversary judges the rollout's own frames."""
        assert rollout.target is not None
        with torch.no_grad():
            x_t = noisy_end(
                schedule,
                rollout.target,
                rollout.t,
                rollout.x_t,
                rollout.counts > 0,
                partial(rollout.in_context, critics.real),
                solver=self.solver,
                num_steps=self.num_steps,
            )
        restored = regression(rollout.denoise(x_t, rollout.t), rollout.target, rollout.counts)
        adversarial = self.gan.student_loss(rollout, clips, critics.adversary, schedule=schedule, rng=rng)
        return restored + self.gan_weight * adversarial

    def critic_loss(
        self, rollout: Rollout, clips: Video, critics: PagodaCritics, *, schedule: Schedule, rng: Generator
    ) -> Scalar:
        """The adversary's."""
        return self.gan.critic_loss(rollout, clips, critics.adversary, schedule=schedule, rng=rng)
