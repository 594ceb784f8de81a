"""The loss of one network under several schedules: the same mean, another spread."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from pipeline.diffusion.adaptive import AdaptiveSpec
from pipeline.diffusion.noise_levels import Independent, TeacherForcing
from pipeline.diffusion.schedule import Cosine, EdmTraining, FlowMatching
from pipeline.diffusion.weighting import Exponential, Sigmoid
from pipeline.evaluation.loss_spread import ADAPTIVE, Estimates, LossSpread, estimates, in_family_of, through
from pipeline.losses.l2 import L2
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.models.denoiser import Denoiser, DenoiserSpec, save_denoiser
from pipeline.unit import digest_of
from tests.cells import BACKBONE, make_latents

LAW = Independent(clean_probability=0.5, first_clean_probability=0.25)
WORK = LossSpread(
    DiffusionForcing(noise_levels=LAW),
    L2(Exponential(), first_weight=2.0),
    {"cosine": Cosine(), "flow_matching": FlowMatching(shift=2.0)},
    num_clips=4096,
    batch_size=2048,
    fit_size=1024,
    adaptive=AdaptiveSpec(num_bins=24, low=-12.0, high=12.0, decay=0.5),
)


def network(prediction="v", schedule=None):
    """An untrained network whose output is not 0."""
    student = Denoiser(DenoiserSpec(BACKBONE, prediction, schedule or Cosine()))
    for parameter in student.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    return student.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What WORK says of the network, by law and schedule."""
    root = tmp_path_factory.mktemp("spread")
    make_latents(root / "codec", num_clips=256)
    save_denoiser(network(), root / "student", latents=digest_of(root / "codec" / "codec.json"))
    steps = WORK.run(root / "unit", {"codec": root / "codec", "student": root / "student"})
    reports = []
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as end:
            return reports, end.value


def test_the_schedule_changes_the_spread_and_not_the_mean_where_the_context_is_clean(measured):
    of = measured[1]["teacher_forcing"]
    assert set(of) == {"cosine", "flow_matching", ADAPTIVE}
    for name in ("flow_matching", ADAPTIVE):
        error = math.hypot(of[name]["standard_error"], of["cosine"]["standard_error"])
        assert abs(of[name]["mean"] - of["cosine"]["mean"]) < 3 * error
        assert error < 0.05 * of["cosine"]["mean"]  # else equal would mean little
    assert of[ADAPTIVE]["relative_sd"] < 0.9 * of["flow_matching"]["relative_sd"]


def test_progress_counts_the_fit_and_every_schedule_of_both_laws(measured):
    reports, metrics = measured
    assert [report.step for report in reports] == list(range(1, 8))
    assert {report.num_steps for report in reports} == {7}
    assert set(metrics) == {"training", "teacher_forcing"}


@pytest.mark.parametrize("law", [LAW, TeacherForcing()])
def test_estimates_of_clips_add_up_to_the_loss_of_their_batch(law, rng):
    student, clips = network(), torch.randn(64, 4, 2, 2, 2, generator=rng)
    loss = L2(Sigmoid(), first_weight=3.0)
    rollout = DiffusionForcing(noise_levels=law).rollout(student, clips, schedule=Cosine(), rng=rng)
    whole = loss.student_loss(rollout, clips, torch.nn.Module(), schedule=Cosine(), rng=rng)
    found = estimates(rollout, loss, Cosine())
    assert found.summary()["mean"] == pytest.approx(whole.item(), rel=1e-5)


def test_the_standard_error_is_that_of_a_ratio(rng):
    counts = torch.randint(1, 9, (400_000,), generator=rng).double()
    loss = counts * (2 + 0.5 * torch.randn(400_000, generator=rng).double())
    batches = torch.stack([loss.view(1000, -1).sum(1), counts.view(1000, -1).sum(1)])
    summary = Estimates(loss, counts).summary()
    assert summary["mean"] == pytest.approx(2, rel=0.01)
    spread_of_batches = (batches[0] / batches[1]).std().item()
    assert summary["relative_sd"] * 2 / math.sqrt(400) == pytest.approx(spread_of_batches, rel=0.1)
    assert summary["standard_error"] == pytest.approx(spread_of_batches / math.sqrt(1000), rel=0.1)


@pytest.mark.parametrize("prediction", ["x0", "v", "flow_velocity", "edm"])
@pytest.mark.parametrize("schedule", [FlowMatching(), EdmTraining(family="variance_exploding")])
def test_another_schedule_asks_the_same_function(prediction, schedule, rng):
    """Also where the family decides what an output means: it stays that of the network."""
    student = network(prediction)
    other = in_family_of(student, schedule)
    x, eps = torch.randn(2, 3, 4, 2, 2, 2, generator=rng)
    log_snr = torch.linspace(-5, 5, 12).reshape(3, 4).double()
    answers = []
    for asked, under in ((student, student.spec.schedule), (through(student, other), other)):
        t = under.level(log_snr).float()
        alpha, sigma = under.at(t)
        answers.append(asked(alpha * x + sigma * eps, t))
    assert torch.allclose(*answers, atol=1e-4)


@pytest.mark.parametrize("log_snr", [-11.5, -4.5, 0.5, 4.5])
def test_the_adaptive_schedule_is_fitted_to_the_error_of_the_network(log_snr, tmp_path):
    """Also at high noise, where the error is 1e-5 of what its table starts from."""
    student, law = network(), TeacherForcing()
    clips = torch.from_numpy(np.load(make_latents(tmp_path) / "train.npy"))
    work = dataclasses.replace(WORK, method=DiffusionForcing(noise_levels=law))
    fitted = work.fitted(student, clips)
    batch = clips.repeat(200, 1, 1, 1, 1)
    rng = torch.Generator().manual_seed(1)
    t = torch.zeros(batch.shape[:2])
    t[:, 0] = Cosine().level(torch.tensor(log_snr)).float()
    t[:, 1:] = 1.0
    alpha, sigma = Cosine().at(t)
    x0_hat = student(alpha * batch + sigma * torch.randn(batch.shape, generator=rng), t)
    error = (x0_hat - batch)[:, 0].square().mean().item() * math.exp(log_snr)
    found = fitted.error[0, int(log_snr + 12)].item()
    assert found == pytest.approx(error, rel=0.35)


def test_levels_are_drawn_where_the_loss_is_large(tmp_path):
    clips = torch.from_numpy(np.load(make_latents(tmp_path) / "train.npy"))
    fitted = WORK.fitted(network(), clips)
    u = torch.rand(4096, 4, generator=torch.Generator().manual_seed(0))
    drawn, loss = fitted.log_snr(fitted.draw(u)), fitted.error[0] * torch.exp(-fitted.edges[:-1] / 2 - 0.25)
    share = torch.histc(drawn[:, 0].float(), 24, -12, 12).double() / len(u)
    assert (share - loss / loss.sum()).abs().max() < 0.02
    assert torch.equal(fitted.error, WORK.fitted(network(), clips).error)


def test_a_schedule_must_not_take_the_name_of_the_adaptive_one():
    with pytest.raises(ValueError, match="schedules must have other names than adaptive, got adaptive"):
        dataclasses.replace(WORK, schedules={"adaptive": Cosine()})
