"""Neural students on a process: they learn it, generators begin from them, and what does not fit is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.laboratory.measure import ONE_STEP
from pipeline.laboratory.neural import ExactTeacher, NeuralStudent, compared
from pipeline.losses.dmd import Dmd
from pipeline.losses.kd import Kd
from pipeline.losses.l2 import L2
from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.self_forcing import SelfForcing
from pipeline.methods.teacher_forcing import TeacherForcing
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, load_denoiser
from pipeline.training.loop import TrainingSpec
from pipeline.training.optimizer import OptimizerSpec
from tests.processes import PROCESSES

MUON = OptimizerSpec("muon", 3e-3, 2e-2, max_grad_norm=10.0)
FAST = TrainingSpec(
    num_steps=250, batch_size=64, ema_decay=0.9, report_every=50, checkpoint_every=250, optimizer=MUON
)
BEGUN = replace(
    FAST,
    num_steps=40,
    batch_size=256,
    report_every=20,
    checkpoint_every=40,
    optimizer=OptimizerSpec(learning_rate=1e-3, beta1=0.0),
    critic_optimizer=MUON,
)
BACKBONE = BackboneSpec(channels=1, frame_size=1, patch=1, width=16, depth=1, num_heads=1)
SIZES = {"num_clips": 4096, "num_paths": 256, "num_samples": 512}


def student(method: Any, loss: Any) -> NeuralStudent:
    """Of two frames of D; a type checker wants ClassVars of method and loss."""
    return NeuralStudent(PROCESSES["D"], method, loss, BACKBONE, FAST, seed=0, **SIZES)


L2_STUDENT = student(TeacherForcing(), L2())
DMD = Dmd(critic_updates=2, space="score", normaliser=False)
GENERATOR = replace(L2_STUDENT, loss=DMD, training=BEGUN)


def made(work, directory, inputs=None):
    """What a unit returns; its products lie in the directory."""
    directory.mkdir(exist_ok=True)
    steps, seen = work.run(directory, inputs or {}), []
    while True:
        try:
            seen.append(next(steps).step)
        except StopIteration as end:
            return end.value, seen


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A causal denoiser, trained on data: its directory and its metrics."""
    directory = tmp_path_factory.mktemp("origin")
    metrics, seen = made(L2_STUDENT, directory)
    assert seen == [0, 50, 100, 150, 200, 250]
    return directory / "out", metrics


def value(metrics, divergence):
    return metrics["divergences"][divergence]["value"]


def test_a_denoiser_learns_the_process(origin):
    """Untrained its flow stands still, and leaves N(0, 1) at every frame."""
    torch.manual_seed(0)
    before = L2_STUDENT.measured(Denoiser(L2_STUDENT._spec("causal")))
    path, metrics = origin
    assert value(before, "forward_kl") > 1
    for divergence in ("forward_kl", "reverse_kl", "jensen_shannon"):
        assert 0 < value(metrics, divergence) < 0.25 * value(before, divergence)
    assert metrics["shares"] == pytest.approx((0.75, 0.25), abs=0.12)
    assert json.loads(json.dumps(metrics, allow_nan=False))["data_shares"] == [0.75, 0.25]
    assert load_denoiser(path, latents=L2_STUDENT.latents).spec.backbone.attention == "causal"


def test_the_steps_of_a_causal_student_sum_to_its_divergences(origin):
    _, metrics = origin
    for contexts, divergence in (("true", "forward_kl"), ("own", "reverse_kl")):
        steps = metrics["steps"][contexts]
        assert len(steps) == PROCESSES["D"].num_frames
        assert sum(step["value"] for step in steps) == pytest.approx(value(metrics, divergence), abs=1e-6)


def test_a_generator_begins_from_a_denoiser_and_moves_towards_data(origin, tmp_path):
    """At its start it makes means, nearly without spread."""
    path, _ = origin
    start = GENERATOR.measured(load_denoiser(path, latents=GENERATOR.latents))
    metrics, _ = made(GENERATOR, tmp_path, {"init": path, "critic": path})
    for divergence in ("forward_kl", "reverse_kl", "jensen_shannon"):
        assert metrics["divergences"][divergence]["estimator"] == "both_densities"
        assert value(metrics, divergence) < 0.9 * value(start, divergence)
    assert value(metrics, "forward_kl") < 0.5 * value(start, "forward_kl")


def test_a_generator_of_whole_clips_is_told_from_data_by_a_classifier(tmp_path):
    whole = replace(L2_STUDENT, method=Bidirectional(), training=replace(FAST, num_steps=2))
    metrics, _ = made(whole, tmp_path / "l2")
    assert metrics["divergences"]["forward_kl"]["estimator"] == "both_densities"
    assert metrics["steps"] == {}
    path = tmp_path / "l2" / "out"
    generator = replace(whole, loss=DMD, training=replace(BEGUN, num_steps=2))
    metrics, _ = made(generator, tmp_path / "dmd", {"init": path, "critic": path})
    assert metrics["divergences"]["forward_kl"]["estimator"] == "classifier_bound"
    assert value(metrics, "jensen_shannon") > 0.1  # of ln 2: it has hardly begun
    assert metrics["steps"] == {}


def test_a_student_is_a_function_of_its_seed(tmp_path):
    short = replace(L2_STUDENT, training=replace(FAST, num_steps=2))
    works = short, short, replace(short, seed=1)
    first, again, other = (made(work, tmp_path / str(n))[0] for n, work in enumerate(works))
    assert first == again
    assert value(first, "forward_kl") != value(other, "forward_kl")


def test_data_compared_with_itself_is_nowhere_apart():
    law = replace(PROCESSES["D"], num_frames=3).law
    x, y = (law.sample(500, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    divergences, steps = compared(lambda at: law.log_density(at)[:, None], law, x, y)
    assert [estimate.value for estimate in divergences.values()] == pytest.approx([0, 0, 0], abs=1e-12)
    assert steps == {}


def test_the_exact_teacher_answers_in_the_precision_of_networks():
    law = PROCESSES["D"].law
    teacher = ExactTeacher(lambda: law)
    x_t, t = torch.randn(3, 2, 1, 1, 1, generator=torch.Generator().manual_seed(0)), torch.full((3, 2), 0.5)
    alone = teacher(x_t, t)
    exact = law.denoised(
        x_t[..., 0, 0, 0].double(), torch.tensor([0.5, 0.5]).double(), torch.tensor([0.5, 0.5]).double()
    )
    assert alone.dtype == teacher.beside(x_t, t, x_t).dtype == torch.float32
    assert alone[..., 0, 0, 0].numpy() == pytest.approx(exact.numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"process": PROCESSES["A"]}, "num_frames must be at least 2, got 1"),
        ({"loss": Kd()}, "loss must be one of L2, Dmd, Gan, Sid, got Kd"),
        ({"method": SelfForcing(ONE_STEP)}, "method must provide a target for the loss L2, got SelfForcing"),
        ({"method": SelfForcing(), "loss": DMD}, "sampler must be that of one step"),
        ({"backbone": replace(BACKBONE, channels=2)}, "backbone must be of one pixel, frame by frame"),
        ({"num_samples": 8}, "num_samples must be at least 256, got 8"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(L2_STUDENT, **changes)


def test_inputs_that_do_not_fit_are_refused(origin, tmp_path):
    path, _ = origin
    with pytest.raises(ValueError, match="Dmd needs a critic to start from, and the unit has no such input"):
        made(GENERATOR, tmp_path)
    with pytest.raises(ValueError, match="attention of the critic must be full under DiffusionForcing, got causal"):
        made(replace(GENERATOR, method=DiffusionForcing()), tmp_path, {"critic": path})
    with pytest.raises(ValueError, match="an input must have the backbone of the student"):
        made(replace(GENERATOR, backbone=replace(BACKBONE, width=32)), tmp_path, {"init": path, "critic": path})
    with pytest.raises(ValueError, match="must speak the latents"):
        made(replace(GENERATOR, process=PROCESSES["C"]), tmp_path, {"init": path, "critic": path})
