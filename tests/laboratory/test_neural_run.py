"""The neural students of a run: who begins from whom, what is refused, and the rows of the tables."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.config import parse_params
from pipeline.diffusion.adaptive import AdaptiveSpec
from pipeline.laboratory.measure import ONE_STEP
from pipeline.laboratory.neural_run import NeuralCell, NeuralRun, NeuralTask
from pipeline.laboratory.run import Key
from pipeline.losses.dmd import Dmd
from pipeline.losses.gan import Gan
from pipeline.losses.kd import Kd
from pipeline.losses.l2 import L2
from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.self_forcing import SelfForcing
from pipeline.methods.teacher_forcing import TeacherForcing
from pipeline.training.loop import TrainingSpec
from sweeps.laboratory_neural import (
    ESTIMATORS,
    NEURAL,
    in_turn,
    make_after_origins,
    neural_tables,
    neural_tasks,
    num_updates,
)
from sweeps.runner import PARTS
from tests.parameters import raw
from tests.processes import PROCESSES

TF_OWN = ("teacher_forcing-l2", "own")
SHORT = TrainingSpec(num_steps=2, batch_size=8, report_every=1, checkpoint_every=2)


def cell(method: Any, loss: Any, **origins: str) -> NeuralCell:
    """A type checker wants ClassVars of method and loss."""
    return NeuralCell(method, loss, "short", **origins)


CELLS = {
    "self_forcing-gan": cell(SelfForcing(ONE_STEP), Gan(), init="teacher_forcing-l2", critic="bidirectional-l2"),
    "teacher_forcing-l2": cell(TeacherForcing(), L2()),
    "bidirectional-l2": cell(Bidirectional(), L2()),
}
RUN = NeuralRun(
    CELLS,
    {"short": SHORT},
    num_frames=3,
    width=8,
    depth=1,
    num_heads=1,
    num_clips=64,
    num_paths=8,
    num_samples=16,
    bias_samples=(64,),
    bias_repeats=2,
)


def test_who_begins_from_nobody_comes_first():
    tasks = RUN.tasks(PROCESSES["D"], seed=5)
    assert list(tasks) == ["teacher_forcing-l2", "bidirectional-l2", "self_forcing-gan"]
    begun = tasks["self_forcing-gan"]
    assert begun.inputs == {"init": "teacher_forcing-l2", "critic": "bidirectional-l2"}
    assert begun.origins == {name: tasks[name].student for name in begun.inputs.values()}
    assert begun.student.seed == 5
    assert begun.student.process.num_frames == 3
    assert num_updates(begun) == 4
    assert tasks["bidirectional-l2"].origins == {}


def test_origins_of_all_seeds_come_first_and_the_estimators_once():
    tasks = neural_tasks(replace(parse_params(raw()).laboratory, neural=RUN), seed=5)
    assert [(key.process, key.seed) for key in tasks] == [
        *[(name, seed) for seed in (5, 6, 7) for name in ("teacher_forcing-l2", "bidirectional-l2")],
        *[("self_forcing-gan", seed) for seed in (5, 6, 7)],
        ("", 5),
    ]
    assert {key.cell for key in tasks} == {NEURAL, ESTIMATORS}
    assert all(task.student.seed == key.seed for key, task in tasks.items() if isinstance(task, NeuralTask))


@pytest.mark.parametrize(
    ("name", "wrong", "says"),
    [
        ("x", cell(TeacherForcing(), L2(), init="y"), "cells.x.init must be one of .*, got 'y'"),
        (
            "x",
            cell(TeacherForcing(), L2(), init="self_forcing-gan"),
            "cells.x.init must be a cell that begins from no",
        ),
        (
            "x",
            cell(TeacherForcing(), L2(), critic="teacher_forcing-l2"),
            "cells.x.critic must be given where the loss",
        ),
        ("x", cell(TeacherForcing(), Dmd()), "cells.x.critic must be given where the loss compares networks"),
        (
            "x",
            cell(DiffusionForcing(), Dmd(), critic="teacher_forcing-l2"),
            "cells.x.critic must have full attention under DiffusionForcing, got teacher_forcing-l2",
        ),
        ("x", cell(TeacherForcing(), Kd(), critic="teacher_forcing-l2"), "cells.x: loss must be one of L2, Dmd"),
        (
            "x",
            NeuralCell(CELLS["bidirectional-l2"].method, CELLS["bidirectional-l2"].loss, "long"),
            "cells.x.training",
        ),
    ],
)
def test_a_cell_that_cannot_be_trained_is_refused(name, wrong, says):
    with pytest.raises(ValueError, match=says):
        replace(RUN, cells={**CELLS, name: wrong}).tasks(PROCESSES["D"], seed=0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_seeds": 0}, "num_seeds must be at least 1, got 0"),
        ({"num_paths": 32}, "num_samples must be at least 32, got 16"),
        ({"bias_samples": (8,)}, r"num_samples\[0\] must be at least 16, got 8"),
        ({"trainings": {"short": replace(SHORT, adaptive=AdaptiveSpec())}}, "trainings.short must have neither"),
    ],
)
def test_a_run_that_cannot_be_made_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(RUN, **changes).tasks(PROCESSES["D"], seed=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The units of every task, by cell, in a folder of their own; and the shares of its time that each said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORCING_GRID_WORK", str(tmp_path_factory.mktemp("work")))
        found, shares = {}, {}
        for name, task in RUN.tasks(PROCESSES["D"], seed=0).items():
            shares[name] = []
            units = in_turn(task, lambda share, *_, of=shares[name]: of.append(share))
            make_after_origins(task, units)
            found[name] = units.made
    return found, shares


def test_a_student_is_made_after_those_that_it_begins_from(made):
    units, shares = made
    assert set(units["self_forcing-gan"]) == {"teacher_forcing-l2", "bidirectional-l2", "unit"}
    origin = units["teacher_forcing-l2"]["unit"]["unit"]["fingerprint"]
    assert units["self_forcing-gan"]["teacher_forcing-l2"]["unit"]["fingerprint"] == origin
    assert set(units["self_forcing-gan"]["unit"]["unit"]["inputs"]) == {"init", "critic"}
    assert all(set(parts) == set(PARTS) for parts in units["self_forcing-gan"].values())
    assert shares["self_forcing-gan"] == sorted(shares["self_forcing-gan"])
    assert shares["self_forcing-gan"][-1] == pytest.approx(1)


def test_the_tables_have_a_row_for_every_number(made):
    units, _ = made
    found = {Key(NEURAL, name, "", 0): parts["unit"]["metrics"] for name, parts in units.items()}
    steps = RUN.bias(0).run(Path("unused"), {})
    bias = None
    while bias is None:
        try:
            next(steps)
        except StopIteration as end:
            bias = end.value
    rows = neural_tables("D", {**found, Key(ESTIMATORS, "", "", 0): bias})
    frames = {name: pd.DataFrame(table) for name, table in rows.items()}
    neural, modes, steps, estimators = (
        frames[f"{name}.csv"] for name in ("neural", "neural_modes", "neural_steps", "estimators")
    )
    assert list(neural) == ["cell", "process", "seed", "divergence", "value", "low", "high", "estimator"]
    assert len(neural) == 3 * 3
    assert list(modes) == ["cell", "process", "seed", "mode", "share", "data_share"]
    assert modes.groupby("cell")["share"].sum().tolist() == pytest.approx([1, 1, 1])
    assert list(steps)[3:] == ["contexts", "frame", "value", "low", "high", "estimator"]
    assert len(steps) == 2 * 2 * 3  # of the two causal students
    assert list(estimators) == [
        *("pair", "dimensions", "divergence", "estimator", "num_samples"),
        *("exact", "estimate", "low", "high"),
    ]
    path = sum(row["value"] for row in rows["neural_steps.csv"] if (row["cell"], row["contexts"]) == TF_OWN)
    metrics = json.loads(json.dumps(found[Key(NEURAL, "teacher_forcing-l2", "", 0)]))
    assert path == pytest.approx(metrics["divergences"]["reverse_kl"]["value"], abs=1e-6)
