"""Losses that regress a flow map, on two frames: fixed points by other ways, and what training finds of them."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import parse_params
from pipeline.data.processes import Mode, PersistentModes
from pipeline.data.processes_mixture import IndependentPixels
from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.flow_map import SOLVERS
from pipeline.diffusion.noise_levels import Independent
from pipeline.diffusion.schedule import FlowMatching, add_noise
from pipeline.laboratory import flow_map_lines
from pipeline.laboratory.denoisers import ExactDenoiser
from pipeline.laboratory.flow_map import (
    DISTILLATION,
    TRAINING,
    flow_map_name,
    flow_map_optimum,
    flow_maps_for,
    predict_flow_map,
)
from pipeline.laboratory.flow_map_lines import ends
from pipeline.laboratory.flow_map_measure import MeasureFlowMap
from pipeline.laboratory.flow_map_students import GaussianFlow, LineByLevel
from pipeline.laboratory.laws import chain_law
from pipeline.laboratory.measure import ONE_STEP
from pipeline.laboratory.objectives import CLEANED
from pipeline.laboratory.optima import Laboratory, NoOptimumError
from pipeline.laboratory.predict import Predictions
from pipeline.laboratory.quadrature import COARSE
from pipeline.losses.mean_flow import MeanFlow
from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.self_forcing import SelfForcing
from pipeline.methods.teacher_forcing import TeacherForcing
from pipeline.models.linear_gaussian import Chain
from tests.parameters import raw
from tests.processes import PROCESSES

RUN = parse_params(raw()).laboratory
D = PROCESSES["D"]
ONE_MODE = PersistentModes((1.0,), (Mode(mean=0.5, std=1.2, slope=-0.6, shift=0.3, noise=0.7),))
SCHEDULE, MEAN_FLOW = FlowMatching(), MeanFlow(power=0.0)
TRUE: Any = TeacherForcing()  # a type checker wants the ClassVars of a protocol, too
NOISED: Any = DiffusionForcing(noise_levels=CLEANED)
OWN: Any = SelfForcing(ONE_STEP)
CELLS: dict[str, tuple[Any, Any]] = {
    "teacher_forcing-consistency_training": (TRUE, TRAINING),
    "teacher_forcing-consistency_distillation": (TRUE, DISTILLATION),
    "teacher_forcing-mean_flow": (TRUE, MEAN_FLOW),
    "diffusion_forcing-consistency_training": (NOISED, TRAINING),
    "diffusion_forcing-consistency_distillation": (NOISED, DISTILLATION),
    "diffusion_forcing-mean_flow": (NOISED, MEAN_FLOW),
    "self_forcing-consistency_distillation": (OWN, DISTILLATION),
}
TOLERANCE = 0.02


def apart(one, other):
    return max(abs(one[name] - other[name]) for name in other)


def lines_on_samples(loss, clips, rng):
    """A student whose lines are fitted to these clips by least squares, level by level, after clean frames."""
    student, teacher = LineByLevel(loss.grid, D.law, "causal"), ExactDenoiser(lambda: D.law)
    one = torch.ones(len(clips), 1, dtype=torch.float64)
    noise = torch.randn(clips.shape, generator=rng, dtype=torch.float64)
    for index, (level, lower) in enumerate(zip(student.levels[1:], student.levels[:-1], strict=True)):
        t, t_next = level.expand(len(clips), 2), lower.expand(len(clips), 2)
        x_t = add_noise(SCHEDULE, clips, noise, t)
        x_next = add_noise(SCHEDULE, clips, noise, t_next)
        if loss is DISTILLATION:
            denoise = lambda x, t: teacher.beside(x, t, clips)  # noqa: E731
            x_next = SOLVERS["heun"](SCHEDULE, x_t, t, t_next, denoise, rng)
        with torch.no_grad():
            wanted = student.beside(x_next, t_next, clips)[..., 0, 0, 0]
            for f, lines in enumerate((student.first, student.after_clean)):
                seen = torch.cat([clips[:, :f, 0, 0, 0], x_t[:, f : f + 1, 0, 0, 0], one], 1)
                fitted = torch.linalg.lstsq(seen, wanted[:, f]).solution
                lines.gains[index], lines.shifts[index] = fitted[:-1], fitted[-1]
    return student


@pytest.mark.parametrize("name", [name for name, (method, loss) in CELLS.items() if loss is not MEAN_FLOW])
def test_lines_fitted_to_samples_end_where_they_are_predicted_to(name):
    method, loss = CELLS[name]
    rng, found = torch.Generator().manual_seed(3), predict_flow_map(D, method, loss)
    own = chain_law(Chain(*torch.tensor(list(found.values()), dtype=torch.float64)), 2)
    clips = IndependentPixels(own if method is OWN else D.law).sample(2**17, rng)
    assert apart(lines_on_samples(loss, clips, rng).of_noise(), found) < 0.012


def test_a_later_frame_on_a_normal_law_loses_the_correlations_of_neighbouring_levels():
    t = TRAINING.grid.levels(SCHEDULE)
    alpha, sigma, std = 1 - t, t, 0.7
    spread = (alpha**2 * std**2 + sigma**2).sqrt()
    kept = ((alpha[1:] * alpha[:-1] * std**2 + sigma[1:] * sigma[:-1]) / (spread[1:] * spread[:-1])).prod().item()
    found = predict_flow_map(ONE_MODE, TRUE, TRAINING)
    assert found["c"] == pytest.approx(-0.6)
    assert found["m2"] == pytest.approx(0.3)
    assert found["s2"] == pytest.approx(std * kept)


def test_steps_that_are_lines_lead_alike_from_whatever_frames():
    """Where the teacher is a line, self forcing finds what teacher forcing finds."""
    beside_data, beside_own = (predict_flow_map(ONE_MODE, method, DISTILLATION) for method in (TRUE, OWN))
    assert beside_own == pytest.approx(beside_data, abs=1e-9)
    assert apart(predict_flow_map(D, OWN, DISTILLATION), predict_flow_map(D, TRUE, DISTILLATION)) > 0.2


@pytest.mark.parametrize("start", [(0.0, 0.3, 0.0, 0.0, 0.3), (-4.0, 3.0, 2.0, -3.0, 2.0)])
def test_own_frames_lead_to_one_student_from_afar(start):
    """Where a map contracts, training finds its fixed point from any start."""
    chain = torch.tensor(start, dtype=torch.float64)
    for _ in range(9):
        chain = torch.tensor([*ends(chain_law(Chain(*chain), 2), D.law, DISTILLATION, COARSE).values()]).double()
    found = predict_flow_map(D, OWN, DISTILLATION)
    assert apart(dict(zip(found, chain.tolist(), strict=True)), found) < 1e-3


def gradients(student, method, loss, *, num_batches=24):
    """Of every parameter, over batches: (batches, parameters)."""
    critics = loss.critics(ExactDenoiser(lambda: D.law, "causal") if loss.needs_teacher else None)
    rng, rows = torch.Generator().manual_seed(7), []
    parameters = list(student.parameters())
    for _ in range(num_batches):
        clips = IndependentPixels(D.law).sample(2**12, rng)
        rollout = method.rollout(student, clips, schedule=SCHEDULE, rng=rng)
        value = loss.student_loss(rollout, clips, critics, schedule=SCHEDULE, rng=rng)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters)]))
    return torch.stack(rows)


def surprise(rows):
    """How many standard errors the mean gradient is from 0, for every parameter."""
    error = rows.std(0) / len(rows) ** 0.5
    return rows.mean(0).abs() / error.clamp_min(
        1e-12
    )  # from pure noise a step is a line, which fits but for rounding


@pytest.mark.parametrize("method", [TRUE, NOISED])
def test_the_gradient_of_mean_flow_vanishes_at_the_moments_of_data(method):
    student = GaussianFlow(2, "causal")
    with torch.no_grad():
        for parameter, value in zip(student.values, predict_flow_map(D, method, MEAN_FLOW).values(), strict=True):
            parameter.fill_(value)
    assert surprise(gradients(student, method, MEAN_FLOW)).max() < 4.5
    with torch.no_grad():
        student.values[2] += 0.1  # the slope
    assert surprise(gradients(student, method, MEAN_FLOW))[2] > 8


@pytest.mark.parametrize("loss", [TRAINING, DISTILLATION])
def test_the_gradient_of_consistency_vanishes_at_the_fitted_lines(loss):
    rng = torch.Generator().manual_seed(4)
    student = lines_on_samples(loss, IndependentPixels(D.law).sample(2**18, rng), rng)
    method = replace(TRUE, sampler=ONE_STEP)
    assert surprise(gradients(student, method, loss)).max() < 4.5
    with torch.no_grad():
        student.after_clean.gains[-1, 0] += 0.1
    assert surprise(gradients(student, method, loss)).max() > 8


def test_what_is_predicted_can_be_told_apart_and_says_how_precisely():
    found = {name: flow_map_optimum(D, name) for name in flow_maps_for(D, "frame_by_frame")}
    assert set(found) == {flow_map_name(method, loss, 2) for method, loss in CELLS.values()}
    points = [one.best.parameters for one in found.values()]
    assert min(apart(a, b) for a, b in combinations(points, 2)) > TOLERANCE
    assert max(one.integration_error for one in found.values()) < 1e-4
    assert flow_maps_for(D, "tied") == {}
    assert flow_maps_for(PROCESSES["E"], "tied") == {}


def test_own_frames_that_lead_nowhere_leave_the_other_predictions(monkeypatch):
    """Between modes far apart the teacher's steps bend so much that there is no end."""
    monkeypatch.setattr(flow_map_lines, "MAX_ITERATIONS", 15)
    apart = PersistentModes((0.5, 0.5), tuple(Mode(mean, 0.3, 0.9, 0.0, 0.3) for mean in (-2.0, 2.0)))
    with pytest.raises(NoOptimumError, match="a student's own frames lead on and on"):
        predict_flow_map(apart, OWN, DISTILLATION, precision=COARSE)
    name = "self_forcing_consistency_distillation"
    predictions = Predictions(apart, "frame_by_frame")
    assert name in predictions.names
    with pytest.raises(NoOptimumError):
        predictions.of(name)
    assert predictions.of("teacher_forcing_consistency_distillation").is_field


def test_diffusion_forcing_has_the_predictions_of_teacher_forcing_where_first_frames_are_clean():
    for loss in (TRAINING, DISTILLATION, MEAN_FLOW):
        assert flow_map_name(NOISED, loss, 2) == flow_map_name(TRUE, loss, 2)
    never_clean: Any = DiffusionForcing()
    assert flow_map_name(never_clean, TRAINING, 2) is None
    assert flow_map_name(never_clean, MEAN_FLOW, 2) == "teacher_forcing_mean_flow"
    assert flow_map_name(OWN, DISTILLATION, 2) == "self_forcing_consistency_distillation"
    assert flow_map_name(OWN, MEAN_FLOW, 2) is None
    known = Laboratory(D.law, "frame_by_frame").predict("l2_flow_bidirectional").best.parameters
    assert predict_flow_map(D, NOISED, MEAN_FLOW) == pytest.approx(known, abs=1e-6)


def measured(name, *, num_steps, batch_size=2048):
    method, loss = CELLS[name]
    training = replace(RUN.training, num_steps=num_steps, batch_size=batch_size)
    return MeasureFlowMap(D, "frame_by_frame", method, loss, training, 0, num_clips=2**18)


def settled(work):
    steps = work.run(Path("unused"), {})
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value["parameters"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "diffusion_forcing-consistency_training",
        "diffusion_forcing-mean_flow",
        "self_forcing-consistency_distillation",
    ],
)
def test_a_flow_map_lands_where_it_is_predicted_on_two_frames(name):
    work = measured(name, num_steps=400)
    assert apart(settled(work), predict_flow_map(D, work.method, work.loss)) < TOLERANCE


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"method": Bidirectional()},
            "method must be TeacherForcing, DiffusionForcing, SelfForcing for num_frames=2",
        ),
        ({"method": DiffusionForcing()}, "noise_levels must be independent and leave first frames clean"),
        ({"method": DiffusionForcing(noise_levels=Independent(0.5, 0.0))}, "leave first frames clean"),
        ({"method": TeacherForcing(chunk_len=2)}, "chunk_len must be 1, a line a frame, got 2"),
        ({"method": SelfForcing(Sampler(num_steps=2))}, "sampler must have one step and clean context"),
        ({"method": SelfForcing(replace(ONE_STEP, context_noise=0.1))}, "sampler must have one step and clean"),
        ({"method": SelfForcing(ONE_STEP, detach_context=False)}, "detach_context must be on"),
        ({"method": OWN, "loss": MEAN_FLOW}, "method must provide a target for MeanFlow, got SelfForcing"),
        ({"student": "tied"}, "student must be frame_by_frame for a flow map of lines, got tied"),
        ({"process": replace(D, num_frames=3)}, "num_frames must be 1 or 2 for a flow map of lines, got 3"),
    ],
)
def test_what_has_no_known_line_on_two_frames_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(measured("teacher_forcing-consistency_distillation", num_steps=1), **changes)
