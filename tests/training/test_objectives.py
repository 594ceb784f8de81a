"""Every name of the mathematics trains a teacher: schedules, predictions, weightings, laws of noise levels."""

import dataclasses

import pytest
import torch

from pipeline.diffusion.adaptive import AdaptiveSpec
from pipeline.diffusion.noise_levels import NOISE_LEVELS
from pipeline.diffusion.prediction import PREDICTIONS
from pipeline.diffusion.schedule import SCHEDULES, Cosine, EdmSampling, VpLinear
from pipeline.diffusion.weighting import WEIGHTINGS, Elbo, PredictionL2, Sigmoid
from pipeline.losses.l2 import L2
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.models.denoiser import Denoiser, DenoiserSpec
from pipeline.training.loop import TrainState, train
from pipeline.training.optimizer import OptimizerSpec
from pipeline.unit import run_unit
from tests.cells import BACKBONE, make_cell, make_latents

GRIDS = {"path_uniform": {"num_levels": 8}}


def clips(num_clips=64, num_frames=4):
    """Clips of unit variance, all bright or all dark: one value tells the rest."""
    rng = torch.Generator().manual_seed(0)
    sign = torch.randint(2, (num_clips, 1, 1, 1, 1), generator=rng) * 2.0 - 1
    return sign + 0.1 * torch.randn(num_clips, num_frames, 2, 2, 2, generator=rng)


def improvement(cell, *, num_frames=4):
    """How much of the error at middling noise is gone after training: 0 is none."""
    torch.manual_seed(0)
    student = Denoiser(cell.denoiser)
    state = TrainState(student, torch.nn.Module(), cell.training, cell.adaptive(num_frames))
    x = clips(num_frames=num_frames)
    schedule = cell.denoiser.schedule
    t = schedule.level(torch.tensor([[0.5]]).double()).float().expand(x.shape[:2]).contiguous()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    alpha, sigma = schedule.at(t)
    x_t = alpha * x + sigma * noise

    def error():
        with torch.no_grad():
            return (student(x_t, t) - x).square().mean().item()

    before = error()
    for report in train(state, x, method=cell.method, loss=cell.loss, seed=0):
        assert report.metrics["student_loss"].isfinite()
    return 1 - error() / before


def cell_of(denoiser=None, method=None, loss=None, adaptive=None):
    cell = make_cell(num_steps=60, batch_size=32, adaptive=adaptive, optimizer=OptimizerSpec(learning_rate=1e-2))
    return dataclasses.replace(
        cell,
        denoiser=denoiser or cell.denoiser,
        method=method or cell.method,
        loss=loss or L2(Sigmoid()),
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_teacher_learns_under_every_schedule(name):
    assert improvement(cell_of(DenoiserSpec(BACKBONE, schedule=SCHEDULES[name]()))) > 0.1


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_teacher_learns_by_every_prediction(name):
    assert improvement(cell_of(DenoiserSpec(BACKBONE, name, VpLinear()))) > 0.1


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_a_teacher_learns_under_every_weighting(name):
    assert improvement(cell_of(DenoiserSpec(BACKBONE, "v", Cosine()), loss=L2(WEIGHTINGS[name]()))) > 0.1


@pytest.mark.parametrize("name", NOISE_LEVELS)
def test_a_teacher_learns_from_every_law_of_noise_levels(name):
    law = NOISE_LEVELS[name](**GRIDS.get(name, {}))
    assert improvement(cell_of(method=DiffusionForcing(noise_levels=law))) > 0.1


@pytest.mark.parametrize("family", ["variance_preserving", "variance_exploding", "flow"])
def test_a_teacher_learns_in_every_family(family):
    schedule = EdmSampling(family=family)
    assert improvement(cell_of(DenoiserSpec(BACKBONE, "edm", schedule))) > 0.1


def test_a_teacher_learns_at_levels_that_adapt_and_resumes_them(tmp_path, work_root):
    cell = cell_of(adaptive=AdaptiveSpec(num_bins=10))
    assert improvement(cell) > 0.1
    codec = make_latents(tmp_path / "codec")
    whole = run_unit("cell", cell, {"codec": codec})
    assert (whole / "out" / "student.safetensors").exists()


def test_adaptive_levels_need_a_loss_on_data():
    cell = make_cell(loss="dmd", adaptive=AdaptiveSpec())
    with pytest.raises(ValueError, match=r"training.adaptive must be null but for the loss l2, got Dmd"):
        cell.adaptive(4)


def test_the_tables_of_adaptive_levels_are_in_the_checkpoint():
    cell = cell_of(loss=L2(Elbo()), adaptive=AdaptiveSpec(num_bins=10))
    state = TrainState(Denoiser(cell.denoiser), torch.nn.Module(), cell.training, cell.adaptive(4))
    steps = train(state, clips(), method=cell.method, loss=cell.loss, seed=0)
    for _ in range(5):
        next(steps)
    kept = {name: tensor.clone() for name, tensor in state.tensors().items()}
    following = [next(steps).metrics["student_loss"].item() for _ in range(3)]
    other = TrainState(Denoiser(cell.denoiser), torch.nn.Module(), cell.training, cell.adaptive(4))
    other.load(5, 0, kept)
    steps = train(other, clips(), method=cell.method, loss=cell.loss, seed=0)
    assert [next(steps).metrics["student_loss"].item() for _ in range(3)] == following
    assert not torch.equal(kept["adaptive/error"], cell.adaptive(4).error)


def test_one_network_answers_alike_through_every_schedule_and_family(rng):
    """A denoiser is a function of the frames at variance 1 and of their log-SNR."""
    torch.manual_seed(0)
    network = Denoiser(DenoiserSpec(BACKBONE, "edm", Cosine()))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    x, eps = torch.randn(2, 3, 4, 2, 2, 2, generator=rng)
    log_snr = torch.linspace(-6, 6, 12).reshape(3, 4)
    answers = []
    for kind in (Cosine, VpLinear, EdmSampling):
        for family in ("variance_preserving", "variance_exploding", "flow"):
            schedule = kind(family=family)
            other = Denoiser(DenoiserSpec(BACKBONE, "edm", schedule))
            other.load_state_dict(network.state_dict())
            t = schedule.level(log_snr).float()
            alpha, sigma = schedule.at(t)
            answers.append(other(alpha * x + sigma * eps, t))
    for answer in answers[1:]:
        assert torch.allclose(answer, answers[0], atol=2e-4)


def test_a_loss_names_its_weighting_and_not_the_schedule_it_is_drawn_by():
    """Two schedules, one objective: gradients of many draws agree far better than those of two objectives."""
    torch.manual_seed(0)
    x = clips(512)

    def gradient(schedule, weighting, seed):
        student = Denoiser(DenoiserSpec(BACKBONE, "edm", schedule))
        student.load_state_dict(start)
        rng = torch.Generator().manual_seed(seed)
        total = torch.zeros(())
        for _ in range(40):
            rollout = DiffusionForcing().rollout(student, x, schedule=schedule, rng=rng)
            total = total + L2(weighting).student_loss(rollout, x, torch.nn.Module(), schedule=schedule, rng=rng)
        parts = torch.autograd.grad(total / 40, list(student.parameters()), allow_unused=True)
        return torch.cat([g.flatten() for g in parts if g is not None])

    network = Denoiser(DenoiserSpec(BACKBONE, "edm", Cosine()))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    start = network.state_dict()
    one, same = gradient(Cosine(), Sigmoid(2.0), 0), gradient(VpLinear(), Sigmoid(2.0), 1)
    different = gradient(VpLinear(), PredictionL2("x0"), 1)
    assert torch.cosine_similarity(one, same, 0) > 0.99
    assert torch.cosine_similarity(one, same, 0) > torch.cosine_similarity(one, different, 0)
    assert abs(one.norm() / same.norm() - 1) < 0.1
