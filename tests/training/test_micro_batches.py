"""Micro-batches: smaller pieces of one update, and never another schedule of updates."""

import pytest
import torch

from pipeline.diffusion.adaptive import AdaptiveSchedule, AdaptiveSpec
from pipeline.diffusion.weighting import PredictionL2
from pipeline.interfaces import Rollout
from pipeline.losses.loss import CriticLoss
from pipeline.models.denoiser import Denoiser
from pipeline.models.ema import Ema
from pipeline.training.loop import TrainState, train
from pipeline.training.optimizer import Optimizer
from pipeline.unit import run_unit
from tests.cells import make_cell, make_latents


def start(loss, **training):
    """A cell, and its state before the first step; the teacher is untrained."""
    cell = make_cell(loss=loss, num_steps=2, **training)
    torch.manual_seed(0)
    teacher = Denoiser(make_cell(attention="full").denoiser)
    torch.manual_seed(1)
    return cell, TrainState(Denoiser(cell.denoiser), cell.loss.critics(teacher), cell.training)


def calls_of(cell, state, clips, monkeypatch):
    """What the loop asks for in its steps, in order, with the number of clips; and the reports."""
    seen = []

    def spy(kind, owner, name, size):
        original = getattr(owner, name)

        def call(self, *args, **kwargs):
            seen.append((kind, size(args)))
            return original(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    spy("rollout", type(cell.method), "rollout", lambda args: len(args[1]))
    if isinstance(cell.loss, CriticLoss):
        spy("critic", type(cell.loss), "critic_loss", lambda args: len(args[1]))
    spy("student", type(cell.loss), "student_loss", lambda args: len(args[1]))
    spy("update", Optimizer, "update", lambda _: None)
    spy("ema", Ema, "update", lambda _: None)
    reports = list(train(state, clips, method=cell.method, loss=cell.loss, seed=0))
    return seen, reports


def test_micro_batches_keep_the_order_and_number_of_updates(rng, monkeypatch):
    clips = torch.randn(16, 4, 2, 2, 2, generator=rng)
    seen, reports = calls_of(*start("gan", batch_size=6, micro_batch_size=2), clips, monkeypatch)
    critic = [("rollout", 2), ("critic", 2)] * 3 + [("update", None)]
    student = [("rollout", 2), ("student", 2)] * 3 + [("update", None), ("ema", None)]
    assert seen == (critic + student) * 2
    assert [report.step for report in reports] == [1, 2]


def test_every_micro_batch_has_clips_and_a_rollout_of_its_own(rng, monkeypatch):
    clips, seen = torch.randn(64, 4, 2, 2, 2, generator=rng), {}
    for size in (None, 4):
        cell, state = start("l2", batch_size=8, micro_batch_size=size)
        original, batches = type(cell.loss).student_loss, seen.setdefault(size, [])

        def spy(self, rollout, batch, *args, original=original, batches=batches, **kwargs):
            batches.append((batch, rollout.t))
            return original(self, rollout, batch, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(type(cell.loss), "student_loss", spy)
            next(train(state, clips, method=cell.method, loss=cell.loss, seed=0))
    (whole, _), ((first, first_t), (second, second_t)) = seen[None][0], seen[4]
    assert torch.equal(torch.cat([first, second]), whole)  # the same clips, whatever the pieces
    assert not torch.equal(first_t, second_t)


def without_draws(monkeypatch, cell):
    """Make the method show the clips at one level, without noise, and the loss compare frame f with f - 1."""

    def rollout(self, student, clips, *, schedule, rng):
        t = torch.full(clips.shape[:2], 0.5)
        return Rollout(student(clips, t), clips, t, counts=torch.ones_like(t), target=clips, denoise=student)

    def student_loss(self, rollout, clips, critics, *, schedule, rng):
        return (rollout.x0_hat - clips.roll(1, dims=1)).square().mean()

    monkeypatch.setattr(type(cell.method), "rollout", rollout)
    monkeypatch.setattr(type(cell.loss), "student_loss", student_loss)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_gradient_is_that_of_the_whole_batch(size, rng, monkeypatch):
    """For a loss that averages over clips and draws nothing: loss and gradient are equal up to rounding."""
    clips, found = torch.randn(16, 4, 2, 2, 2, generator=rng), {}
    for micro_batch_size in (None, size):
        cell, state = start("l2", batch_size=8, micro_batch_size=micro_batch_size)
        without_draws(monkeypatch, cell)
        with torch.no_grad():  # its head starts at zero, where all gradients below it are zero
            state.student.backbone.head.weight.normal_(generator=rng.manual_seed(3))
        gradients = []

        def keep(self, parts, *, factor, gradients=gradients):
            gradients.extend(parts)
            return torch.zeros(())

        monkeypatch.setattr(Optimizer, "update", keep)
        report = next(train(state, clips, method=cell.method, loss=cell.loss, seed=0))
        found[micro_batch_size] = (report.metrics["student_loss"], gradients)
    (whole_loss, whole), (loss, pieces) = found[None], found[size]
    torch.testing.assert_close(loss, whole_loss, rtol=1e-6, atol=0)
    assert sum(g.norm() > 1e-3 for g in whole) > 10
    for a, b in zip(pieces, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["l2", "dmd", "gan"])
def test_one_micro_batch_is_the_whole_batch_bit_by_bit(loss, rng):
    clips, weights = torch.randn(16, 4, 2, 2, 2, generator=rng), []
    for size in (None, 8):
        cell, state = start(loss, batch_size=8, micro_batch_size=size)
        list(train(state, clips, method=cell.method, loss=cell.loss, seed=0))
        weights.append(state.tensors())
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_the_adaptive_schedule_sees_all_micro_batches_in_one_observation(rng, monkeypatch):
    clips, seen = torch.randn(16, 4, 2, 2, 2, generator=rng), []
    cell, state = start("l2", batch_size=8, micro_batch_size=2)
    state.adaptive = AdaptiveSchedule(AdaptiveSpec(low=-5.0, high=5.0), cell.denoiser.schedule, PredictionL2(), 4)
    before, observe = state.adaptive.error.clone(), AdaptiveSchedule.observe

    def spy(self, t, x0_hat, x0, counts):
        seen.append([part.shape[:2] for part in (t, x0_hat, x0, counts)])
        assert torch.equal(self.error, before)  # every rollout of the step drew from the same density
        return observe(self, t, x0_hat, x0, counts)

    monkeypatch.setattr(AdaptiveSchedule, "observe", spy)
    next(train(state, clips, method=cell.method, loss=cell.loss, seed=0))
    assert seen == [[(8, 4)] * 4]


def test_operations_of_all_micro_batches_are_counted(rng):
    clips, flops = torch.randn(16, 4, 2, 2, 2, generator=rng), []
    for size in (None, 2):
        cell, state = start("dmd", batch_size=8, micro_batch_size=size)
        next(train(state, clips, method=cell.method, loss=cell.loss, seed=0))
        flops.append(state.flops_per_step)
    assert flops[0] == flops[1] > 0


def test_an_interrupted_cell_with_micro_batches_ends_bit_identical(tmp_path, monkeypatch):
    cell, codec = make_cell(micro_batch_size=2), make_latents(tmp_path / "codec")

    class Killed(BaseException):
        pass

    def kill(progress):
        if progress.step >= 6 and progress.metrics:
            raise Killed

    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "whole"))
    expected = run_unit("cell", cell, {"codec": codec})
    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "broken"))
    with pytest.raises(Killed):
        run_unit("cell", cell, {"codec": codec}, on_progress=kill)
    found = run_unit("cell", cell, {"codec": codec})
    for name in ("out/student.safetensors", "metrics.json", "curve.jsonl"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


def test_a_micro_batch_that_is_not_finite_names_the_step(rng):
    clips = torch.randn(16, 4, 2, 2, 2, generator=rng)
    cell, state = start("l2", batch_size=8, micro_batch_size=2)
    run = train(state, clips, method=cell.method, loss=cell.loss, seed=0)
    next(run)
    before = {name: tensor.clone() for name, tensor in state.student.state_dict().items()}
    clips[:12] = torch.nan  # some of the micro-batches have none of them
    with pytest.raises(FloatingPointError, match=r"student_loss is nan at step 1$"):
        next(run)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.student.state_dict().items())


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (0, "micro_batch_size must be at least 1, got 0"),
        (3, "micro_batch_size must divide batch_size, got 3 and 8"),
        (16, "micro_batch_size must divide batch_size, got 16 and 8"),
    ],
)
def test_micro_batches_that_do_not_fill_a_batch_are_refused(size, says):
    with pytest.raises(ValueError, match=says):
        make_cell(micro_batch_size=size)
