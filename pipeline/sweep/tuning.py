"""The search for a cell's setting: the same number of trials of the same ranges for every cell, by Optuna."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.losses.loss import Loss
from pipeline.rules import above, at_least, one_of
from pipeline.training.cell import TrainCell
from pipeline.training.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from optuna import Study, Trial

SEARCHES = ("random", "tpe")


@dataclass(frozen=True)
class Setting:
    """What the search may choose of a cell; None: as the parameters of the grid say.

    learning_rate: of the student. critic_rate_factor: on the rates of the critics. critic_updates: a step.
    """

    learning_rate: float | None = None
    critic_rate_factor: float | None = None
    critic_updates: int | None = None

    @property
    def words(self) -> str:
        """For people and names: what is set."""
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return ", ".join(f"{name} {value:g}" for name, value in given.items()) or "as the parameters say"

    def applied(self, train: TrainCell) -> TrainCell:
        """The same cell by this setting; what concerns critics says nothing of a cell without."""
        training, loss = train.training, train.loss
        if self.learning_rate is not None:
            factor = self.learning_rate / training.optimizer.learning_rate
            training = dataclasses.replace(training, optimizer=scaled(training.optimizer, factor))
        if loss.critic_updates:
            if self.critic_rate_factor is not None:
                optimizer = scaled(training.critic_optimizer, self.critic_rate_factor)
                training = dataclasses.replace(training, critic_optimizer=optimizer)
            if self.critic_updates is not None:
                loss = with_critic_updates(loss, self.critic_updates)
        return dataclasses.replace(train, training=training, loss=loss)


def scaled(spec: OptimizerSpec, factor: float) -> OptimizerSpec:
    """Both learning rates times a factor, to six digits."""
    rates = {name: float(f"{factor * vars(spec)[name]:.6g}") for name in ("learning_rate", "matrix_learning_rate")}
    return dataclasses.replace(spec, **rates)


def with_critic_updates(loss: Loss, number: int) -> Loss:
    """A loss that has critics of its own, or those of the `gan` within it, with so many updates of them a step."""
    fields = {field.name: vars(loss)[field.name] for field in dataclasses.fields(loss)}  # pyright: ignore
    if "critic_updates" in fields:
        return dataclasses.replace(loss, critic_updates=number)  # pyright: ignore
    return dataclasses.replace(loss, gan=with_critic_updates(fields["gan"], number))  # pyright: ignore


@dataclass(frozen=True)
class Tuning:
    """num_trials of every cell, each of the whole budget; the first is the setting of the grid's parameters.

    search: random draws the same settings for all cells; tpe lets each cell's results guide its next trial
    (Optuna's tree-structured Parzen estimator). learning_rate, critic_rate_factor: low and high ends, drawn evenly
    in the logarithm. critic_updates: choices. seed: of the search, and of its trainings.
    """

    search: str = "random"
    num_trials: int = 3
    learning_rate: tuple[float, float] = (1.0e-5, 2.0e-4)
    critic_rate_factor: tuple[float, float] = (0.33, 3.0)
    critic_updates: tuple[int, ...] = (1, 2, 4)
    seed: int = 0

    def __post_init__(self) -> None:
        one_of(SEARCHES, search=self.search)
        at_least(2, num_trials=self.num_trials)
        at_least(0, seed=self.seed)
        for name in ("learning_rate", "critic_rate_factor"):
            low, high = vars(self)[name]
            above(0, **{name: low})
            if not low < high:
                raise ValueError(f"{name} must be a low and a high end, got {low} and {high}")
        if not self.critic_updates or min(self.critic_updates) < 1:
            raise ValueError(f"critic_updates must be choices of at least 1, got {list(self.critic_updates)}")

    @property
    def batch(self) -> int:
        """Trials of a cell that are known before any of them has a result."""
        return self.num_trials if self.search == "random" else 1

    def check(self, train: TrainCell) -> None:
        """Raises ValueError where the setting of the parameters lies outside the ranges of the search."""
        rate, updates = train.training.optimizer.learning_rate, train.loss.critic_updates
        low, high = self.learning_rate
        if not low <= rate <= high:
            raise ValueError(f"learning_rate must hold that of the parameters, {rate:g}: got {low:g} to {high:g}")
        if not self.critic_rate_factor[0] <= 1 <= self.critic_rate_factor[1]:
            raise ValueError(f"critic_rate_factor must hold 1, got {self.critic_rate_factor}")
        if updates and updates not in self.critic_updates:
            choices = ", ".join(map(str, self.critic_updates))
            raise ValueError(f"critic_updates must hold that of the parameters, {updates}: got {choices}")


class Search:
    """The trials of one cell, asked for in batches and told their results."""

    def __init__(self, tuning: Tuning, train: TrainCell) -> None:
        import optuna
        from optuna.distributions import CategoricalDistribution, FloatDistribution
        from optuna.samplers import RandomSampler, TPESampler

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        samplers = {
            "random": lambda: RandomSampler(seed=tuning.seed),
            "tpe": lambda: TPESampler(seed=tuning.seed, n_startup_trials=max(2, tuning.num_trials // 3)),
        }
        self.tuning = tuning
        self.study: Study = optuna.create_study(sampler=samplers[tuning.search]())
        self.ranges: dict[str, Any] = {
            "learning_rate": FloatDistribution(*tuning.learning_rate, log=True),
            "critic_rate_factor": FloatDistribution(*tuning.critic_rate_factor, log=True),
            "critic_updates": CategoricalDistribution(tuning.critic_updates),
        }
        self.has_critics = train.loss.critic_updates > 0
        first = {"learning_rate": train.training.optimizer.learning_rate, "critic_rate_factor": 1.0}
        updates = train.loss.critic_updates or tuning.critic_updates[0]
        self.study.enqueue_trial({**first, "critic_updates": updates})
        self.asked: dict[Setting, list[Trial]] = {}
        self.values: dict[Setting, float] = {}
        self.num_asked = 0

    def ask(self) -> list[Setting]:
        """The settings to try next; none when all were tried. Raises nothing: what failed counts as tried."""
        found = []
        for _ in range(min(self.tuning.batch, self.tuning.num_trials - self.num_asked)):
            trial = self.study.ask(self.ranges)
            setting = self._setting(trial.params, is_first=self.num_asked == 0)
            self.num_asked += 1
            self.asked.setdefault(setting, []).append(trial)
            found.append(setting)
        return found

    def _setting(self, chosen: Mapping[str, Any], *, is_first: bool) -> Setting:
        """To three digits; without what a cell without critics has no use for."""
        if is_first:
            return Setting()
        rates = {name: float(f"{chosen[name]:.3g}") for name in ("learning_rate", "critic_rate_factor")}
        if not self.has_critics:
            return Setting(learning_rate=rates["learning_rate"])
        return Setting(**rates, critic_updates=chosen["critic_updates"])

    def tell(self, setting: Setting, value: float | None) -> None:
        """What a trial came to, lower is better; None: it failed."""
        from optuna.trial import TrialState

        for trial in self.asked.pop(setting, []):  # asked twice, it was one trial
            if value is None:
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, value)
        if value is not None:
            self.values[setting] = value

    @property
    def best(self) -> Setting:
        """The setting with the lowest value; that of the parameters where every trial failed."""
        return min(self.values, key=self.values.__getitem__, default=Setting())
