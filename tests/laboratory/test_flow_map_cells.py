"""Losses that regress a flow map land where lines are predicted to land; fewer levels are farther from data."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from pipeline.config import parse_params
from pipeline.data.processes import LineMixture
from pipeline.diffusion.flow_map import Discretisation
from pipeline.diffusion.schedule import EdmSampling
from pipeline.laboratory.flow_map import (
    DISTILLATION,
    TRAINING,
    flow_map_name,
    flow_map_optimum,
    flow_maps_for,
    predict_flow_map,
)
from pipeline.laboratory.flow_map_measure import MeasureFlowMap
from pipeline.laboratory.optima import Laboratory
from pipeline.losses.consistency_distillation import ConsistencyDistillation
from pipeline.losses.consistency_training import ConsistencyTraining
from pipeline.losses.mean_flow import MeanFlow
from tests.parameters import raw
from tests.processes import PROCESSES

RUN = parse_params(raw()).laboratory
NORMAL = LineMixture((1.0,), (0.0,), (1.0,))
EDM = Discretisation(18, spacing=EdmSampling())
BIDIRECTIONAL, TEACHER_FORCING, L2_ELBO = (  # as they are parsed
    RUN.cells["bidirectional-kd"].method,
    RUN.cells["teacher_forcing-dmd"].method,
    RUN.cells["bidirectional-l2_elbo"].loss,
)
LOSSES = {
    "consistency_training": TRAINING,
    "consistency_distillation": DISTILLATION,
    "mean_flow": MeanFlow(power=0.0),
}
TOLERANCE = 0.02


def quick(loss, process="A", *, num_steps=300, batch_size=1024):
    training = replace(
        RUN.training, num_steps=num_steps, batch_size=batch_size, report_every=100, checkpoint_every=100
    )
    return MeasureFlowMap(PROCESSES[process], "gaussian", BIDIRECTIONAL, loss, training, 0, num_clips=2**18)


def run_to_the_end(work):
    """What a unit of work returns, and the progress that it yielded."""
    steps, seen = work.run(Path("unused"), {}), []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return end.value, seen


def apart(one, other):
    return max(abs(one[name] - other[name]) for name in one)


@pytest.mark.parametrize(
    ("loss", "std"),
    [
        (ConsistencyTraining(EDM, metric="l2"), 0.859526005),
        (ConsistencyTraining(replace(EDM, num_levels=10), metric="l2"), 0.75086152),
        (ConsistencyDistillation(EDM, solver="euler"), 0.859526005),
        (ConsistencyDistillation(EDM), 1.04481464),
        (ConsistencyDistillation(replace(EDM, num_levels=10)), 1.17552908),
    ],
)
def test_on_a_normal_law_the_product_over_steps_is_known(loss, std):
    found = predict_flow_map(NORMAL, BIDIRECTIONAL, loss)
    assert found["s"] == pytest.approx(std, abs=1e-6)
    assert found["m"] == pytest.approx(0, abs=1e-9)


def test_training_on_a_mixture_looks_at_its_second_moments_alone():
    loss = ConsistencyTraining(EDM, metric="l2")
    of_mixture, moments = (
        predict_flow_map(PROCESSES["A"], BIDIRECTIONAL, loss),
        LineMixture((1.0,), (0.5,), (1.1875**0.5,)),
    )
    assert of_mixture["s"] == pytest.approx(0.9384, abs=1e-4)
    assert of_mixture == pytest.approx(predict_flow_map(moments, BIDIRECTIONAL, loss))


@pytest.mark.parametrize("process", ["A", "B"])
def test_a_step_of_euler_along_the_teacher_has_the_second_moments_of_training(process):
    """The noised frame's step uses E[x_0 | x_t] in the place of x_0, which a line cannot tell apart."""
    grid = Discretisation(8)
    training = predict_flow_map(PROCESSES[process], BIDIRECTIONAL, ConsistencyTraining(grid, metric="l2"))
    distillation = predict_flow_map(
        PROCESSES[process], BIDIRECTIONAL, ConsistencyDistillation(grid, solver="euler")
    )
    assert distillation == pytest.approx(training, abs=1e-6)


def test_with_more_levels_both_tend_to_the_moments_of_data_and_distillation_is_nearer():
    """A line a step loses what of the step is no line, so that on a mixture both are of first order."""
    moments = predict_flow_map(PROCESSES["A"], BIDIRECTIONAL, MeanFlow(power=0.0))

    def error(loss, num_steps):
        return apart(
            moments,
            predict_flow_map(PROCESSES["A"], BIDIRECTIONAL, replace(loss, grid=Discretisation(num_steps + 1))),
        )

    training, distillation = ConsistencyTraining(metric="l2"), ConsistencyDistillation()
    assert error(training, 64) / error(training, 128) == pytest.approx(2, rel=0.01)
    for num_steps in (64, 128):
        assert error(distillation, num_steps) < error(training, num_steps) / 15


def test_mean_flow_has_the_fixed_point_of_flow_matching():
    known = Laboratory(PROCESSES["A"].law, "gaussian").predict("l2_flow_bidirectional").best.parameters
    assert predict_flow_map(PROCESSES["A"], BIDIRECTIONAL, MeanFlow(power=0.0)) == pytest.approx(known, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_flow_map_lands_where_it_is_predicted(name):
    work = quick(LOSSES[name])
    metrics, _ = run_to_the_end(work)
    assert apart(metrics["parameters"], predict_flow_map(work.process, work.method, work.loss)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_a_flow_map_lands_there_on_two_modes_as_the_laboratory_runs_it(name):
    work = replace(quick(LOSSES[name], "B"), training=RUN.training)
    metrics, _ = run_to_the_end(work)
    assert apart(metrics["parameters"], predict_flow_map(work.process, work.method, work.loss)) < TOLERANCE


@pytest.mark.parametrize("process", ["A", "B"])
def test_what_is_predicted_can_be_told_apart(process):
    names = flow_maps_for(PROCESSES[process], "gaussian")
    found = {name: flow_map_optimum(PROCESSES[process], name) for name in names}
    assert found.keys() == {"consistency_training", "consistency_distillation", "mean_flow"}
    points = [predict_flow_map(PROCESSES[process], BIDIRECTIONAL, loss) for loss in LOSSES.values()]
    assert min(apart(a, b) for a, b in combinations(points, 2)) > TOLERANCE
    for name, prediction in found.items():
        assert prediction.best.parameters == predict_flow_map(PROCESSES[process], BIDIRECTIONAL, LOSSES[name])
        assert prediction.integration_error < 1e-5


def test_a_prediction_is_of_a_loss_with_all_its_parameters():
    assert flow_map_name(BIDIRECTIONAL, TRAINING, 1) == "consistency_training"
    assert flow_map_name(BIDIRECTIONAL, DISTILLATION, 1) == "consistency_distillation"
    assert flow_map_name(BIDIRECTIONAL, ConsistencyTraining(EDM, metric="l2"), 1) is None
    assert flow_map_name(BIDIRECTIONAL, MeanFlow(mean=0.0, power=0.0), 1) == "mean_flow"
    assert flow_map_name(BIDIRECTIONAL, MeanFlow(), 1) is None
    assert flow_map_name(BIDIRECTIONAL, L2_ELBO, 1) is None
    assert flow_map_name(BIDIRECTIONAL, TRAINING, 2) is None


def test_what_is_measured_is_the_end_of_a_path_that_is_reported():
    work = quick(TRAINING, num_steps=4, batch_size=64)
    work = replace(work, training=replace(work.training, report_every=1, checkpoint_every=1))
    metrics, seen = run_to_the_end(work)
    assert [progress.step for progress in seen] == [0, 1, 2, 3, 4]
    assert set(seen[-1].metrics) == {"m", "s", "student_loss", "grad_norm"}
    assert metrics.keys() == {"parameters", "forward_kl", "reverse_kl", "jensen_shannon", "kept"}
    assert metrics["parameters"]["s"] == pytest.approx((seen[3].metrics["s"] + seen[4].metrics["s"]) / 2)
    assert sum(metrics["kept"]) == pytest.approx(1)
    again, other = (run_to_the_end(w)[0]["parameters"] for w in (work, replace(work, seed=1)))
    assert again == metrics["parameters"] != other


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"loss": L2_ELBO}, "loss must be one of ConsistencyTraining, ConsistencyDistillation, MeanFlow, got L2"),
        ({"loss": MeanFlow()}, "power must be 0, whose best lines are known, got 1.0"),
        ({"loss": ConsistencyTraining(Discretisation(8))}, "metric must be l2, whose best lines are known"),
        ({"loss": ConsistencyTraining(metric="l2")}, "grid must stay as it is and have one segment here"),
        ({"loss": ConsistencyDistillation(Discretisation(8, segments=2))}, "curriculum=constant, segments=2"),
        ({"loss": ConsistencyDistillation(EDM)}, "grid.spacing must begin at pure noise"),
        ({"method": TEACHER_FORCING}, "method must be Bidirectional for num_frames=1, got TeacherForcing"),
        ({"process": PROCESSES["C"]}, "num_frames must be 1 for the student gaussian, got 2"),
        ({"num_clips": 0}, "num_clips must be at least 1, got 0"),
    ],
)
def test_what_has_no_known_line_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(quick(DISTILLATION), **changes)
