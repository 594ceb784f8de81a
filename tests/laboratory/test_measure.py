"""Cells land where they are predicted to land, through the training loop; what cannot be measured is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import parse_params
from pipeline.laboratory.derived import derived
from pipeline.laboratory.flow_map_measure import MeasureFlowMap
from pipeline.laboratory.measure import Measure
from pipeline.laboratory.optima import Laboratory
from pipeline.laboratory.run import Key
from tests.parameters import raw
from tests.processes import PROCESSES, STUDENT_OF

RUN = parse_params(raw()).laboratory
FAST = {
    "bidirectional-l2_elbo": "A",
    "bidirectional-dmd": "A",
    "bidirectional-dmd_clean": "A",
    "bidirectional-gan_saturating": "A",
    "bidirectional-gan_non_saturating": "A",
    "bidirectional-sid": "A",
}
SLOW = [
    ("bidirectional-l2_eps", "L"),
    ("bidirectional-f_jensen_shannon", "A"),
    ("diffusion_forcing-l2_flow", "L"),
    ("teacher_forcing-dmd", "D"),
    ("self_forcing-dmd", "L"),
    ("self_forcing_full-dmd", "L"),
    ("self_forcing-gan_non_saturating", "D"),
    ("diffusion_forcing_clean-dmd", "D"),
    ("bidirectional-add", "A"),
]
LEARNED = [("bidirectional-gan_saturating", "A"), ("teacher_forcing-dmd", "D")]
TOLERANCE = 0.02


def run_to_the_end(work):
    """What a unit of work returns, and the progress that it yielded."""
    steps, seen = work.run(Path("unused"), {}), []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return end.value, seen


def quick(cell, process, *, critics="exact", num_steps=400, batch_size=2048):
    work = RUN.measure(Key(cell, process, critics, 0))
    training = replace(
        work.training, num_steps=num_steps, batch_size=batch_size, report_every=100, checkpoint_every=400
    )
    return replace(work, training=training, num_clips=2**18)


def lands(cell, process, **sizes):
    """The largest distance of a parameter from its prediction."""
    work = quick(cell, process, **sizes)
    name = derived(work.method, work.loss, work.process.num_frames, tied=work.student == "tied")
    assert name is not None
    expected = Laboratory(work.process.law, work.student).predict(name).best.parameters
    found = run_to_the_end(work)[0]["parameters"]
    return max(abs(found[parameter] - value) for parameter, value in expected.items())


@pytest.mark.parametrize("cell", FAST)
def test_a_cell_lands_on_its_predicted_optimum(cell):
    assert lands(cell, FAST[cell]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "process"), SLOW)
def test_a_cell_lands_where_training_takes_longer(cell, process):
    assert lands(cell, process) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "process"), LEARNED)
def test_a_cell_lands_there_with_critics_that_learn(cell, process):
    assert lands(cell, process, critics="learned", batch_size=1024) < RUN.rules.learned_tolerance


def test_what_is_measured_is_the_end_of_a_path_that_is_reported():
    work = quick("bidirectional-dmd_clean", "A", num_steps=8, batch_size=64)
    metrics, seen = run_to_the_end(
        replace(work, training=replace(work.training, report_every=2, checkpoint_every=2))
    )
    assert [progress.step for progress in seen] == [0, 2, 4, 6, 8]
    assert set(seen[-1].metrics) == {"m", "s", "student_loss", "grad_norm"}
    second_half = [*(run_at(work, step)["m"] for step in (5, 6, 7)), seen[-1].metrics["m"]]
    assert metrics["parameters"]["m"] == pytest.approx(sum(second_half) / 4)
    assert metrics["forward_kl"] > 0
    assert sum(metrics["kept"]) == pytest.approx(1)


def run_at(work, step):
    """The parameters after a step."""
    training = replace(work.training, report_every=1, checkpoint_every=1)
    return run_to_the_end(replace(work, training=training))[1][step].metrics


def test_a_measurement_is_a_function_of_its_seed():
    work = quick("bidirectional-gan_saturating", "A", num_steps=3, batch_size=32)
    first, again, other = (run_to_the_end(w)[0]["parameters"] for w in (work, work, replace(work, seed=1)))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"critics": "guessed"}, "critics must be one of exact, learned, got 'guessed'"),
        ({"process": PROCESSES["C"]}, "num_frames must be 1 for the student gaussian, got 2"),
        ({"num_clips": 0}, "num_clips must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(quick("bidirectional-dmd", "A"), **changes)


def test_data_must_be_there_for_a_loss_on_data():
    work = RUN.measure(Key("bidirectional-l2_elbo", "D", "exact", 0))
    rolled = RUN.measure(Key("self_forcing-dmd", "D", "exact", 0))
    with pytest.raises(ValueError, match="method must provide a target for the loss L2, got SelfForcing"):
        replace(work, method=rolled.method)
    with pytest.raises(ValueError, match="critics must be exact for a loss that trains none, got L2"):
        replace(work, critics="learned")


def test_every_process_has_its_student():
    assert STUDENT_OF.keys() == PROCESSES.keys()
    for key in RUN.keys(0):
        assert isinstance(RUN.measure(key), Measure | MeasureFlowMap)


@pytest.mark.parametrize("critics", ["exact", "learned"])
def test_a_flow_is_asked_of_the_teacher_that_sees_what_the_student_sees(critics):
    for name, attention in (("diffusion_forcing_clean-pagoda", "causal"), ("self_forcing-dmd", "full")):
        work = RUN.measure(Key(name, "D", critics, 0))
        assert isinstance(work, Measure)
        law = work.process.law
        state, _, _ = work._state(work._start(law), law)
        assert state.critics.real.spec.backbone.attention == attention
