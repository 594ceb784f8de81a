"""Cells of the grid x seeds, untuned and tuned, by Ray Tune: python -m sweeps.run

A trial is a training and its evaluation, the very units that the stages of the pipeline make. Killed at any time,
the same command goes on: finished trials are found, interrupted ones resume. RAY_ADDRESS names a running cluster.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.config import Params
from pipeline.grid import Cell
from pipeline.methods import METHODS
from pipeline.params import TEACHERS
from pipeline.sweep.budget import Price
from pipeline.sweep.plan import (
    DEFAULT_PHASE,
    Setting,
    Trial,
    default_trials,
    start_trials,
    tuned_trials,
    tuning_trials,
)
from pipeline.sweep.price import MeasurePrice, clips_per_step, measured_price
from pipeline.sweep.tuning import Search
from stages.entry import ARTIFACTS, FAILED, GOES_ON, INTERRUPTED, REPORTS, stage
from sweeps.executor import Executor
from sweeps.finished import finished, first_unit
from sweeps.runner import check_inputs, show
from sweeps.storage import Storage
from sweeps.trial import PriceTask, Result, Task, inputs_of_cell, inputs_of_training, make, measure_price
from sweeps.write import write

ORIGINS = {attention: Path("teacher", name) for name, attention in TEACHERS.items()}  # by that of the student


@dataclass
class Sweep:
    """What is known so far. planned: what was asked for; num_steps: by cell and critic updates a step."""

    params: Params
    storage: Storage = field(default_factory=Storage)
    planned: dict[Trial, Task] = field(default_factory=dict)
    results: dict[Trial, Result] = field(default_factory=dict)
    failed: dict[Trial, str] = field(default_factory=dict)
    num_steps: dict[tuple[Cell, int], int] = field(default_factory=dict)
    sent: dict[Path, str] = field(default_factory=dict)  # inputs as the storage knows them

    def shared(self, inputs: Mapping[str, Path]) -> dict[str, str] | None:
        """The inputs, sent where all nodes reach them; None where the folder of the run is such a place."""
        if self.storage.url is None:
            return None
        for name, path in inputs.items():
            if path not in self.sent:
                self.sent[path] = self.storage.share({name: path})[name]
        return {name: self.sent[path] for name, path in inputs.items()}


def main(params: Params) -> None:
    """All trials and their tables; exit code 1 when one of them failed."""
    from pipeline.reporting.sweep import as_text
    from pipeline.reporting.sweep_read import read_sweep

    check_inputs(ARTIFACTS, teachers=tuple(TEACHERS))
    sweep, code = Sweep(params, Storage.open(params.sweep.storage)), 0
    try:
        with Executor(params.sweep) as executor:
            follow(sweep, executor)
    except KeyboardInterrupt:
        sys.stderr.write(f"{GOES_ON}\n")
        code = INTERRUPTED
    if any(trial.phase == DEFAULT_PHASE for trial in sweep.results):  # else it could be compared with nothing
        write(sweep.params, sweep.planned, sweep.results, sweep.failed, REPORTS / "grid")
        show(as_text(read_sweep(REPORTS)))
    if sweep.failed:
        names = "; ".join(trial.name for trial in sweep.failed)
        sys.stderr.write(f"{len(sweep.failed)} of {len(sweep.planned)} trials failed: {names}\n")
    sys.exit(code or (FAILED if sweep.failed else 0))


def follow(sweep: Sweep, executor: Executor) -> None:
    """From prices to tuned cells. Raises ValueError: the budget does not pay a step of a cell."""
    params, run = sweep.params, sweep.params.sweep
    cells = run.selected(params.grid.methods, params.grid.losses).cells
    trials = [*start_trials(run, cells), *default_trials(run, cells)]
    if run.tuning is None:
        run_trials(sweep, executor, trials, name="trials")
        return
    searches = {cell: Search(run.tuning, params.cell_units(cell).train) for cell in cells}
    while asked := {cell: settings for cell in cells if (settings := searches[cell].ask())}:
        tuning = tuning_trials(run.tuning, asked)
        run_trials(sweep, executor, [*trials, *tuning], name="trials")
        for trial in tuning:
            result = sweep.results.get(trial)
            searches[trial.cell].tell(trial.setting, result.excess if result else None)
        trials = []
    chosen = {cell: search.best for cell, search in searches.items()}
    run_trials(sweep, executor, tuned_trials(run, chosen), name="tuned trials")


def run_trials(sweep: Sweep, executor: Executor, trials: Iterable[Trial], *, name: str) -> None:
    """Those that are finished are found, the others are run; what becomes of them stands in the sweep.

    Trials of the same units, such as the start of two methods, are run as one: a unit has one writer.
    """
    trials = list(trials)
    count_steps(sweep, executor, trials)
    waiting: dict[Path, list[Trial]] = {}
    for trial in trials:
        if trial in sweep.failed:
            continue
        task = sweep.planned[trial] = task_of(sweep, trial)
        result = finished(task)
        if result is None:
            waiting.setdefault(first_unit(task), []).append(trial)
        else:
            sweep.results[trial] = result
    alike = {some[0].name: some for some in waiting.values()}
    tasks = {name: sweep.planned[some[0]] for name, some in alike.items()}
    weights = {name: task.num_updates for name, task in tasks.items()}
    for event in executor.run(make, tasks, weights, name=name, noun="trials"):
        for trial in alike[event.name]:
            if event.failure is None:
                sweep.results[trial] = event.result
            else:
                sweep.failed[trial] = event.failure


def count_steps(sweep: Sweep, executor: Executor, trials: Iterable[Trial]) -> None:
    """How many steps the budget pays of every cell, whose prices are measured where it needs that."""
    params, budget = sweep.params, sweep.params.sweep.budget
    wanted = {key_of(sweep, trial): trial for trial in trials if trial.is_training}
    trains = {}
    for key, trial in wanted.items():
        if key not in sweep.num_steps:
            units = params.trial_units(replace(trial, setting=Setting(critic_updates=key[1] or None)), num_steps=1)
            inputs = inputs_of_training(inputs_of(trial, units.teacher))
            trains[key] = replace(units.train, seed=params.seed), inputs
    if not budget.is_measured:
        for key, (train, _) in trains.items():
            sweep.num_steps[key] = budget.num_steps(Price(clips_per_step(train)))
        return
    tasks = {f"{cell}, {updates} critic updates": key for key in trains for cell, updates in [key]}
    work = {}
    for name, key in tasks.items():
        train, inputs = trains[key]
        work[name] = PriceTask(MeasurePrice(train), inputs, sweep.storage, sweep.shared(inputs))
    for event in executor.run(measure_price, work, dict.fromkeys(work, 1), name="prices", noun="prices"):
        key = tasks[event.name]
        if event.failure is None:
            sweep.num_steps[key] = budget.num_steps(measured_price(event.result))
        for trial in trials if event.failure is not None else ():
            if trial.is_training and key_of(sweep, trial) == key:
                sweep.failed[trial] = f"its price could not be measured: {event.failure}"


def key_of(sweep: Sweep, trial: Trial) -> tuple[Cell, int]:
    """What decides the price of a step."""
    usual = sweep.params.grid.losses[trial.cell.loss].critic_updates
    return trial.cell, (trial.setting.critic_updates or usual) if usual else 0


def task_of(sweep: Sweep, trial: Trial) -> Task:
    """Its units and where they find what they need."""
    params, run = sweep.params, sweep.params.sweep
    if trial.is_training:
        units = params.trial_units(trial, sweep.num_steps[key_of(sweep, trial)])
        work, inputs = units, inputs_of(trial, units.teacher)
    else:
        work, inputs = params.start_trial_unit(trial), inputs_of(trial, None)
    return Task(work, inputs, run.resources, sweep.storage, sweep.shared(inputs))


def inputs_of(trial: Trial, teacher: str | None) -> dict[str, Path]:
    """By role; every cell starts from the teacher of its own attention."""
    artifacts = ARTIFACTS.absolute()
    return inputs_of_cell(artifacts, artifacts / ORIGINS[METHODS[trial.cell.method].attention], teacher)


if __name__ == "__main__":
    stage(main)
