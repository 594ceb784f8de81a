"""Consistency: its losses against those of openai, and what its students learn in closed form."""

import contextlib
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from pipeline.diffusion.flow_map import Discretisation
from pipeline.diffusion.prediction import PREDICTIONS
from pipeline.diffusion.schedule import EdmSampling, EdmTraining, FlowMatching
from pipeline.interfaces import Rollout
from pipeline.losses import consistency_distillation, consistency_training
from pipeline.losses.consistency import METRICS, pseudo_huber
from pipeline.losses.consistency_distillation import ConsistencyDistillation
from pipeline.losses.consistency_training import ConsistencyTraining
from pipeline.losses.loss import StagedLoss
from pipeline.models.denoiser import Denoiser
from tests.cells import make_cell

EXPLODING = FlowMatching(family="variance_exploding")  # sigma = t / (1 - t): every sigma has its level
EDM = EdmSampling()
SIGMA_MIN = 0.002


class Told(Denoiser):
    """A denoiser by a formula of x_t and sigma."""

    def __init__(self, answer):
        nn.Module.__init__(self)
        self.answer = answer

    def forward(self, x_t, t, end=None):
        return self.answer(x_t, EXPLODING.at(t).sigma)


def free_rollout(x0, denoise, counts=None, target=None):
    """Only what these losses look at."""
    t = torch.full(x0.shape[:2], 0.5, dtype=x0.dtype)
    counts = torch.ones_like(t) if counts is None else counts
    return Rollout(x0_hat=x0, x_t=x0, t=t, counts=counts, target=target, denoise=denoise)


def draws(monkeypatch, steps, noise):
    """Let the losses draw these steps of the grid and this noise."""
    monkeypatch.setattr("pipeline.diffusion.flow_map.draw_steps", lambda *_: steps)
    for module in (consistency_distillation, consistency_training):
        monkeypatch.setattr(module, "noise_like", lambda *_: noise)


def value(loss, rollout, teacher, rng):
    critics = teacher or nn.Module()
    return loss.student_loss(rollout, rollout.x0_hat, critics, schedule=EXPLODING, rng=rng)


class TestOpenai:
    """openai/consistency_models, on its own inputs: N = 18, steps 0, 8 and 16 from the top."""

    sigma_data = 0.5

    def det(self, frequency):
        """sin(frequency (i + 1)), three clips of one frame."""
        return torch.sin(frequency * torch.arange(1, 13, dtype=torch.float64)).reshape(3, 1, 1, 2, 2)

    def function(self, gain):
        """f of EDM's preconditioning moved to sigma_min, and the denoiser whose step to sigma_min gives it."""

        def denoise(x_t, sigma):
            out = gain * torch.tanh(x_t / (sigma**2 + self.sigma_data**2).sqrt()) + 0.001 * 250 * sigma.log()
            c_skip = self.sigma_data**2 / ((sigma - SIGMA_MIN) ** 2 + self.sigma_data**2)
            c_out = (sigma - SIGMA_MIN) * self.sigma_data / (sigma**2 + self.sigma_data**2).sqrt()
            left = SIGMA_MIN / sigma
            return (c_out * out + c_skip * x_t - left * x_t) / (1 - left).where(left < 1 - 1e-9, 1.0)

        return Told(denoise)

    def teacher(self):
        def denoise(x_t, sigma):
            out = 0.2 * torch.tanh(x_t / (sigma**2 + self.sigma_data**2).sqrt())
            t = (sigma / (1 + sigma))[:, :, 0, 0, 0]
            return PREDICTIONS["edm"].to_x0(out, x_t, EXPLODING.at(t), self.sigma_data)

        return Told(denoise)

    def by_clip(self, loss, teacher, monkeypatch, rng):
        draws(monkeypatch, torch.tensor([[16], [8], [0]]), self.det(1.7))
        x0, values = 0.5 * self.det(0.9), []
        for clip in range(3):
            asked = [self.function(0.4), self.function(0.3)]  # the student, then its target network
            rollout = free_rollout(
                x0, lambda x, t, asked=asked: asked.pop(0)(x, t), torch.eye(3)[clip][:, None].double(), x0
            )
            values.append(value(loss, rollout, teacher, rng).item())
        return values

    def test_training_follows_the_known_frame(self, monkeypatch, rng):
        loss = ConsistencyTraining(Discretisation(18, spacing=EDM), metric="l2")
        found = self.by_clip(loss, None, monkeypatch, rng)
        assert found == pytest.approx([0.00273365877, 0.00545491511, 5.39474822e-05], abs=2e-8)

    def test_distillation_follows_the_teacher_by_a_heun_step(self, monkeypatch, rng):
        loss = ConsistencyDistillation(Discretisation(18, spacing=EDM))
        found = self.by_clip(loss, self.teacher(), monkeypatch, rng)
        assert found == pytest.approx([0.00273811468, 0.00437793368, 4.62539901e-05], abs=2e-8)
        euler = ConsistencyDistillation(Discretisation(18, spacing=EDM), solver="euler")
        assert abs(self.by_clip(euler, self.teacher(), monkeypatch, rng)[1] - found[1]) > 1e-5


class TestLinearStudent:
    """f(x, t_n) = a_n x of data N(0, 1): where the gradient vanishes, the std of f at the highest level.

    The gradient is linear in a and quadratic in (x0, eps), so that four points stand for its mean.
    """

    def best(self, loss, x0, teacher):
        """a_n sqrt(1 + sigma_n^2), the std of f at every level above the lowest."""
        levels = loss.grid.levels(EXPLODING)
        sigma = levels / (1 - levels)
        lowest = sigma[loss.grid.boundaries()]  # of the segment below each level

        def gradient(std):
            a = (std / (1 + sigma[1:] ** 2).sqrt()).requires_grad_(True)

            def denoise(x_t, t):
                above = (t - levels).abs().argmin(1) - 1  # the step that the level tops
                left = (lowest / sigma[1:])[above]
                gain = (a[above] - left) / (1 - left).where(left < 1, 1.0)
                return gain[:, None, None, None, None] * x_t

            rng = torch.Generator().manual_seed(0)
            return torch.autograd.grad(value(loss, free_rollout(x0, denoise, target=x0), teacher, rng), a)[0]

        steps = len(levels) - 1
        offset = gradient(torch.zeros(steps, dtype=torch.float64))
        system = [gradient(row) - offset for row in torch.eye(steps, dtype=torch.float64)]
        return torch.linalg.solve(torch.stack(system, 1), -offset)

    def std_ratio(self, loss, teacher, monkeypatch):
        """From the four points, at every step of the grid."""
        steps = loss.grid.num_levels - 1
        x0, eps = torch.cartesian_prod(*[torch.tensor([1.0, -1.0], dtype=torch.float64)] * 2).T
        x0, eps = (x.repeat_interleave(steps)[:, None, None, None, None] for x in (x0, eps))
        draws(monkeypatch, torch.arange(steps).repeat(4)[:, None], eps)
        return self.best(loss, x0, teacher)

    def teacher(self):
        return Told(lambda x_t, sigma: x_t / (1 + sigma**2))

    @pytest.mark.parametrize(("num_levels", "ratio"), [(10, 0.75086152), (18, 0.859526005), (40, 0.936139269)])
    def test_training_shrinks_by_a_factor_a_step(self, num_levels, ratio, monkeypatch):
        """prod (1 + s s_next) / (1 + s^2)."""
        loss = ConsistencyTraining(Discretisation(num_levels, spacing=EDM), metric="l2")
        assert self.std_ratio(loss, None, monkeypatch)[-1].item() == pytest.approx(ratio, abs=1e-6)

    def test_the_weights_do_not_move_it(self, monkeypatch):
        loss = ConsistencyTraining(Discretisation(18, spacing=EDM), metric="l2", weight="inverse_step")
        assert self.std_ratio(loss, None, monkeypatch)[-1].item() == pytest.approx(0.859526005, abs=1e-6)

    def test_distillation_by_heun_is_nearer_and_by_euler_is_training(self, monkeypatch):
        grid = Discretisation(18, spacing=EDM)
        heun = self.std_ratio(ConsistencyDistillation(grid), self.teacher(), monkeypatch)[-1].item()
        assert heun == pytest.approx(1.04481464, abs=1e-6)
        euler = ConsistencyDistillation(grid, solver="euler")
        found = self.std_ratio(euler, self.teacher(), monkeypatch)[-1].item()
        assert found == pytest.approx(0.859526005, abs=1e-6)

    @pytest.mark.parametrize(("num_levels", "ratio"), [(18, 0.284917598), (40, 0.285581809)])
    def test_without_the_stopped_gradient_training_never_tends_to_the_data(self, num_levels, ratio, monkeypatch):
        monkeypatch.setattr(torch, "no_grad", contextlib.nullcontext)
        loss = ConsistencyTraining(Discretisation(num_levels, spacing=EDM), metric="l2")
        assert self.std_ratio(loss, None, monkeypatch)[-1].item() == pytest.approx(ratio, abs=1e-5)

    def test_draws_of_its_own_lead_there_too(self):
        """Levels, noise and the teacher's step as training has them, 100,000 times."""
        grid = Discretisation(10, spacing=EDM)
        x0 = torch.randn(100_000, 1, 1, 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        training = self.best(ConsistencyTraining(grid, metric="l2"), x0, None)[-1].item()
        assert training == pytest.approx(0.75086152, abs=0.02)
        distillation = self.best(ConsistencyDistillation(grid), x0, self.teacher())[-1].item()
        assert distillation == pytest.approx(1.17552908, abs=0.02)

    def test_segments_are_each_their_own_product_and_together_the_same(self, monkeypatch):
        """Of each segment's top level, the step to its boundary; the boundaries chain."""
        loss = ConsistencyTraining(Discretisation(18, spacing=EDM, segments=3), metric="l2")
        shrunk = self.std_ratio(loss, None, monkeypatch)
        levels = loss.grid.levels(EXPLODING)
        second = 1 + (levels / (1 - levels)) ** 2
        bounds = [*loss.grid.boundaries().unique().tolist(), 17]
        total = 1.0
        for low, high in pairwise(bounds):
            total *= (shrunk[high - 1] / second[low].sqrt()).item()
        assert bounds == [0, 6, 12, 17]
        assert total * second[0].sqrt().item() == pytest.approx(0.859526005, abs=1e-5)


def test_pseudo_huber_is_that_of_improved_consistency_training():
    error = torch.tensor([2.0, 0.01]).reshape(2, 1, 1, 1, 1)
    assert pseudo_huber(error, 0.03).flatten().tolist() == pytest.approx([1.97022499, 0.0016227766], rel=1e-5)
    c = 0.00054 * math.sqrt(12)  # of 12 values a frame
    frames = torch.full((1, 1, 3, 2, 2), 0.5)
    assert METRICS["pseudo_huber"](frames).item() == pytest.approx(math.sqrt(12 * 0.25 + c**2) - c, rel=1e-6)


def tiny(attention="full"):
    torch.manual_seed(0)
    network = Denoiser(make_cell(attention=attention).denoiser)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def rollout_of(student, clips, counts, rng, target=True):
    t = torch.where(counts > 0, 0.6, 0.0)
    eps = torch.randn(clips.shape, generator=rng)
    alpha, sigma = FlowMatching().at(t)
    x_t = alpha * clips + sigma * eps
    return Rollout(student(x_t, t), x_t, t, counts=counts, target=clips if target else None, denoise=student)


@pytest.mark.parametrize("kind", [ConsistencyDistillation, ConsistencyTraining])
def test_gradient_reaches_the_student_alone_through_the_upper_point_alone(kind, rng):
    student, teacher = tiny("causal"), tiny()
    loss = kind()
    critics = loss.critics(teacher)
    clips = torch.randn(3, 4, 2, 2, 2, generator=rng, requires_grad=True)
    asked, counts = [], torch.tensor([[0.0, 1.0, 1.0, 1.0]]).repeat(3, 1)

    def denoise(x_t, t):
        asked.append((x_t, t, torch.is_grad_enabled()))
        return student(x_t, t)

    made = rollout_of(student, clips.detach(), counts, rng)
    rollout = Rollout(made.x0_hat, made.x_t, made.t, counts, made.target, denoise)
    loss.student_loss(rollout, clips, critics, schedule=FlowMatching(), rng=rng).backward()
    assert [grad for *_, grad in asked] == [True, False]
    assert clips.grad is None
    assert all(p.grad is None for p in critics.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())
    (upper, t, _), (lower, t_next, _) = asked
    assert (t_next[:, 1:] < t[:, 1:]).all()
    assert torch.equal(upper[:, 0], made.x_t[:, 0])  # the clean context is the context of both
    assert torch.equal(lower[:, 0], made.x_t[:, 0])
    assert not t[:, 0].any()
    assert not t_next[:, 0].any()


def test_distillation_takes_the_students_own_frames_where_there_is_no_target(rng):
    student, loss = tiny("causal"), ConsistencyDistillation()
    counts = torch.ones(3, 4)
    clips = torch.randn(3, 4, 2, 2, 2, generator=rng)
    rollout = rollout_of(student, clips, counts, rng, target=False)
    critics = loss.critics(tiny())
    found = loss.student_loss(
        rollout, clips, critics, schedule=FlowMatching(), rng=torch.Generator().manual_seed(1)
    )
    (slope,) = torch.autograd.grad(found, rollout.x0_hat, retain_graph=True, allow_unused=True)
    assert slope is None  # they are where it learns, and not what it moves
    as_data = Rollout(rollout.x0_hat, rollout.x_t, rollout.t, counts, rollout.x0_hat.detach(), student)
    same = loss.student_loss(as_data, clips, critics, schedule=FlowMatching(), rng=torch.Generator().manual_seed(1))
    assert found.item() == same.item() > 0


def test_the_grid_becomes_finer_in_the_course_of_a_run():
    loss = ConsistencyTraining()
    assert isinstance(loss, StagedLoss)
    counts = [loss.at_progress(share / 5).grid.num_levels for share in range(5)]
    assert counts == [11, 21, 41, 81, 161]
    assert ConsistencyDistillation().at_progress(0.3) == ConsistencyDistillation()


def test_improved_consistency_training_is_a_choice_of_parameters(rng):
    visits = EdmTraining(mean=2.2, std=4.0)
    grid = Discretisation(1281, "doubling", 11, spacing=EDM, visits=visits)
    loss = ConsistencyTraining(grid, weight="inverse_step").at_progress(0.0)
    student = tiny("causal")
    clips = torch.randn(3, 4, 2, 2, 2, generator=rng)
    rollout = rollout_of(student, clips, torch.ones(3, 4), rng)
    found = loss.student_loss(rollout, clips, nn.Module(), schedule=FlowMatching(), rng=rng)
    assert found.item() > 0


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (ConsistencyDistillation, {"solver": "rk4"}, "solver must be one of euler, heun, got 'rk4'"),
        (ConsistencyDistillation, {"metric": "lpips"}, "metric must be one of l2, pseudo_huber, got 'lpips'"),
        (ConsistencyTraining, {"weight": "snr"}, "weight must be one of uniform, inverse_step, got 'snr'"),
        (
            ConsistencyTraining,
            {"weight": "inverse_step"},
            "weight must not be inverse_step, which is 0 at pure noise",
        ),
    ],
)
def test_consistency_refuses_impossible_parameters(kind, fields, says):
    with pytest.raises(ValueError, match=says):
        kind(**fields)
