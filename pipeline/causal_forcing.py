"""The experiment on the claim of Causal Forcing: on whose trajectories may a causal student begin?

arXiv:2602.02214: regression on the trajectories of a teacher of full attention has no answer for a causal
student, since an end depends on the noise of frames to come; on those of a causal teacher it has. Every way to
begin is given as many updates, is measured in few steps, and then goes on as self forcing by DMD.
"""

import dataclasses
from dataclasses import dataclass, field

from pipeline.evaluation.evaluate import Evaluate
from pipeline.evaluation.regression_residual import RegressionResidual
from pipeline.losses.consistency_distillation import ConsistencyDistillation
from pipeline.losses.dmd import Dmd
from pipeline.methods.on_trajectories import OnTrajectories
from pipeline.methods.self_forcing import SelfForcing
from pipeline.rules import at_least
from pipeline.training.init import CONTEXTS, ConsistencyInit, Init, OdeRegression, Setting, TeacherInit, Unit
from pipeline.training.loop import TrainingSpec

ROLLED = "rollout"  # the student after self forcing


@dataclass(frozen=True)
class CausalForcing:
    """Ways to begin, each for training.num_steps updates but the teacher's weights as they are, which have none.

    num_trajectories, num_steps, solver: of each teacher's flow. num_heldout: trajectories on which the residual is
    measured. rollout: the updates of self forcing that follow, by `dmd`. num_clips: n of every evaluation.
    """

    training: TrainingSpec
    rollout: TrainingSpec
    dmd: Dmd = field(default_factory=Dmd)
    consistency: ConsistencyDistillation = field(default_factory=ConsistencyDistillation)
    num_trajectories: int = 2048
    num_steps: int = 16
    solver: str = "heun"
    num_heldout: int = 512
    num_clips: int = 1024

    def __post_init__(self) -> None:
        at_least(1, num_trajectories=self.num_trajectories)
        at_least(2, num_heldout=self.num_heldout, num_clips=self.num_clips)
        for name, training in (("training", self.training), ("rollout", self.rollout)):
            if training.adaptive is not None:
                raise ValueError(f"{name}.adaptive must be null: it is for the loss on data alone")
        self.inits()

    def inits(self) -> dict[str, Init]:
        """The ways to begin, by name."""
        return {
            "teacher": TeacherInit(),
            **{f"ode_regression_{attention}": self.regression(attention) for attention in CONTEXTS},
            "consistency": ConsistencyInit(self.training, self.consistency),
        }

    def regression(self, attention: str) -> OdeRegression:
        """On the trajectories of one teacher."""
        return OdeRegression(attention, self.training, self.num_trajectories, self.num_steps, self.solver)

    def trajectories(self, setting: Setting) -> dict[str, Unit]:
        """Of both teachers, to train on and held out, by name."""
        units = [
            self.regression(attention).trajectories(setting, split=split, num_clips=num_clips)
            for attention in CONTEXTS
            for split, num_clips in (("train", self.num_trajectories), ("heldout", self.num_heldout))
        ]
        return {unit.name: unit for unit in units}

    def units(self, name: str, setting: Setting, method: SelfForcing, evaluate: Evaluate) -> tuple[Unit, ...]:
        """Everything about one way to begin, in order: make, measure, regress, roll out, measure again."""
        begin = self.inits()[name].units(setting)
        trajectories = self.trajectories(setting)
        held_out = [trajectories[f"{attention}_heldout"] for attention in CONTEXTS]
        residuals = [self._residual(attention, setting) for attention in CONTEXTS]
        rollout = setting.cell(method, self.dmd, self.rollout)
        reads = {"codec": "codec", "init": begin[-1].name, "teacher": SelfForcing.teacher}
        return (
            *begin,
            self._evaluated(begin[-1].name, setting, evaluate),
            *held_out,
            *residuals,
            Unit(ROLLED, "cell", rollout, reads),
            self._evaluated(ROLLED, setting, evaluate),
        )

    def _evaluated(self, student: str, setting: Setting, evaluate: Evaluate) -> Unit:
        """In the students' few steps, without a likelihood, which they have not."""
        plain = {"bits": None, "i3d_path": None, "i3d_sha256": None}
        work = dataclasses.replace(
            evaluate,
            sampler=setting.sampler,
            num_clips=self.num_clips,
            num_threads=setting.num_threads,
            **plain,
        )
        reads = {"clips": "prepare", "features": "features", "codec": "codec", "student": student}
        return Unit(f"{student}_measured", "evaluate", work, reads)

    def _residual(self, attention: str, setting: Setting) -> Unit:
        method = OnTrajectories(CONTEXTS[attention], setting.sampler)
        work = RegressionResidual(method, seed=setting.seed, num_threads=setting.num_threads)
        reads = {"codec": "codec", "student": "student", "trajectories": f"{attention}_heldout"}
        return Unit(f"{attention}_residual", "residual", work, reads)
