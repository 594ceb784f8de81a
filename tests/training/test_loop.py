"""The loop: the schedule of updates, and whose weights they move."""

import pytest
import torch

from pipeline.models.denoiser import Denoiser
from pipeline.training.loop import TrainingSpec, TrainState, train
from pipeline.training.optimizer import Optimizer, OptimizerSpec, is_hidden_matrix
from tests.cells import make_cell


def start(method="diffusion_forcing", loss="dmd"):
    cell = make_cell(method, loss, num_steps=2)
    torch.manual_seed(0)
    teacher = Denoiser(make_cell(attention="full").denoiser)
    torch.manual_seed(1)
    return cell, TrainState(Denoiser(cell.denoiser), cell.loss.critics(teacher), cell.training)


def test_critic_updates_each_see_a_fresh_rollout_then_the_student_moves(rng, monkeypatch):
    cell, state = start()
    clips, seen = torch.randn(16, 4, 2, 2, 2, generator=rng), []
    critic_loss, student_loss = type(cell.loss).critic_loss, type(cell.loss).student_loss

    def spy(kind, original):
        def call(self, rollout, *args, **kwargs):
            seen.append((kind, rollout.x_t.sum().item(), rollout.x0_hat.requires_grad))
            return original(self, rollout, *args, **kwargs)

        return call

    monkeypatch.setattr(type(cell.loss), "critic_loss", spy("critic", critic_loss))
    monkeypatch.setattr(type(cell.loss), "student_loss", spy("student", student_loss))
    list(train(state, clips, method=cell.method, loss=cell.loss, seed=0))
    assert [kind for kind, _, _ in seen] == (["critic"] * 5 + ["student"]) * 2
    assert len({total for _, total, _ in seen}) == 12
    assert [grad for _, _, grad in seen] == ([False] * 5 + [True]) * 2


def test_a_loss_with_a_curriculum_is_told_how_far_the_run_is(rng, monkeypatch):
    cell, state = start(loss="consistency_training")
    seen, original = [], type(cell.loss).student_loss

    def spy(self, *args, **kwargs):
        seen.append(self.grid.num_levels)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(cell.loss), "student_loss", spy)
    clips = torch.randn(16, 4, 2, 2, 2, generator=rng)
    list(train(state, clips, method=cell.method, loss=cell.loss, seed=0))
    assert seen == [cell.loss.grid.at_progress(share).num_levels for share in (0.0, 0.5)] == [11, 41]


def test_a_step_moves_student_and_fake_score_and_never_the_teacher(rng):
    cell, state = start("self_forcing")
    clips = torch.randn(16, 4, 2, 2, 2, generator=rng)
    before = {name: tensor.clone() for name, tensor in state.critics.state_dict().items()}
    student = {name: tensor.clone() for name, tensor in state.student.state_dict().items()}
    list(train(state, clips, method=cell.method, loss=cell.loss, seed=0))
    moved = {
        name.split(".")[0] for name, t in state.critics.state_dict().items() if not torch.equal(t, before[name])
    }
    assert moved == {"fake"}
    assert any(not torch.equal(t, student[name]) for name, t in state.student.state_dict().items())


def test_a_critic_moves_no_draw_of_the_students_data(rng, monkeypatch):
    clips, drawn = torch.randn(16, 4, 2, 2, 2, generator=rng), {"l2": [], "dmd": []}
    for loss, seen in drawn.items():
        cell, state = start(loss=loss)
        original = type(cell.loss).student_loss

        def spy(self, rollout, batch, *args, seen=seen, original=original, **kwargs):
            seen.append(batch)
            return original(self, rollout, batch, *args, **kwargs)

        monkeypatch.setattr(type(cell.loss), "student_loss", spy)
        list(train(state, clips, method=cell.method, loss=cell.loss, seed=0))
    assert len(drawn["l2"]) == 2
    assert all(torch.equal(*pair) for pair in zip(*drawn.values(), strict=True))


def test_attention_counts_as_operations_on_a_cpu_too(rng):
    """One block: the counter's total is that of its matrices, forward and backward, and of its attention."""
    cell, state = start(loss="l2")
    clips = torch.randn(16, 4, 2, 2, 2, generator=rng)
    next(train(state, clips, method=cell.method, loss=cell.loss, seed=0))
    with_attention = state.flops_per_step
    cell, state = start(loss="l2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.training.loop.ATTENTION_FLOPS", {})
        next(train(state, clips, method=cell.method, loss=cell.loss, seed=0))
    B, heads, tokens, size = 8, 2, 4, 8
    product = 2 * B * heads * tokens * tokens * size  # one of the 2 products forward, and 5 backward
    assert with_attention - state.flops_per_step == 7 * product


@pytest.mark.parametrize("poison", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_moves_no_weight(poison):
    student = Denoiser(make_cell().denoiser)
    optimizer = Optimizer(OptimizerSpec(), student)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    gradients = [torch.zeros_like(p) for p in optimizer.parameters]
    gradients[3].view(-1)[0] = poison
    with pytest.raises(FloatingPointError, match="the gradient's norm is"):
        optimizer.update(gradients, factor=1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_learning_rate_warms_up_and_falls_to_zero():
    spec = OptimizerSpec(warmup_steps=4, decay_share=0.5)
    rates = [spec.rate_at(step, 20) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[10] == 1.0
    assert rates[15] == 0.5
    assert rates[19] == pytest.approx(0.1)
    assert OptimizerSpec(decay_share=0.0).rate_at(19, 20) == 1.0


def test_muon_takes_the_matrices_of_blocks_and_adamw_the_rest():
    student = Denoiser(make_cell().denoiser)
    muon = [name for name, p in student.named_parameters() if is_hidden_matrix(name, p)]
    assert {name.split(".")[-2] for name in muon} == {"qkv", "out", "up", "down"}
    optimizer = Optimizer(OptimizerSpec(name="muon"), student)
    held = sum(
        len(group["params"])
        for torch_optimizer, _ in optimizer.optimizers
        for group in torch_optimizer.param_groups
    )
    assert held == len(list(student.parameters()))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_reloaded_optimizer_goes_on_as_if_never_stopped(name):
    def build():
        torch.manual_seed(0)
        student = Denoiser(make_cell().denoiser)
        return student, Optimizer(OptimizerSpec(name=name, learning_rate=1e-2), student)

    def step(optimizer, seed):
        generator = torch.Generator().manual_seed(seed)
        optimizer.update([torch.randn(p.shape, generator=generator) for p in optimizer.parameters], factor=1.0)

    student, optimizer = build()
    for seed in range(3):
        step(optimizer, seed)
    weights, remembered = student.state_dict(), {k: v.clone() for k, v in optimizer.tensors().items()}
    again, reloaded = build()
    again.load_state_dict(weights)
    reloaded.load(remembered)
    step(optimizer, 9)
    step(reloaded, 9)
    for key, tensor in student.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"num_steps": 1, "ema_decay": 1.0}, "ema_decay must be in"),
        (
            {"num_steps": 1, "report_every": 3, "checkpoint_every": 10},
            "must be a multiple of report_every, got 10 and 3",
        ),
    ],
)
def test_training_refuses_impossible_parameters(fields, says):
    with pytest.raises(ValueError, match=says):
        TrainingSpec(**fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "sgd"}, "name must be one of adamw, muon, got 'sgd'"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"beta2": 1.5}, r"beta2 must be in \[0, 1\), got 1.5"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0, got -1"),
    ],
)
def test_optimizer_refuses_impossible_parameters(fields, says):
    with pytest.raises(ValueError, match=says):
        OptimizerSpec(**fields)
