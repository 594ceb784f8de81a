"""Losses along the teacher's flow ask it in the context of the student, and leave this context as it is."""

import dataclasses

import pytest
import torch

from pipeline.interfaces import Rollout
from pipeline.losses.consistency_distillation import ConsistencyDistillation
from pipeline.losses.kd import Kd
from pipeline.losses.pagoda import Pagoda
from pipeline.models.denoiser import Denoiser
from tests.losses.flow_ends import SCHEDULE, made_by
from tests.losses.reach import tiny


@pytest.mark.parametrize("loss", [ConsistencyDistillation(), Kd(num_steps=3), Pagoda(num_steps=3)])
def test_the_teacher_is_asked_in_the_context_of_the_rollout(loss, rng, monkeypatch):
    """A clean frame before the two that move, and one after them that is noise and does not count."""
    student, critics, asked = tiny(1), loss.critics(tiny()), []
    made, clips = made_by(student, rng)
    x_t = torch.cat([made.x_t, torch.randn(4, 1, 1, 4, 4, generator=rng)], 1)
    t = torch.tensor([[0.0, 0.4, 0.8, 1.0]]).repeat(4, 1)
    counts = torch.tensor([[0.0, 1.0, 1.0, 0.0]]).repeat(4, 1)
    clips = torch.cat([clips, clips[:, :1]], 1)

    def in_context(network, x_t, t):
        asked.append((x_t, t))
        return original(network, x_t, t)

    original = Denoiser.forward
    made = original(student, x_t, t)
    rollout = Rollout(made, x_t, t, counts, clips, lambda *a: original(student, *a), in_context=in_context)
    monkeypatch.setattr(Denoiser, "forward", None)  # the teacher has no other way to be asked
    loss.student_loss(rollout, clips, critics, schedule=SCHEDULE, rng=rng)
    assert len(asked) > 1
    for x, level in asked:
        for frame in (0, 3):
            assert torch.equal(x[:, frame], x_t[:, frame])
            assert torch.equal(level[:, frame], t[:, frame])
    silent = dataclasses.replace(rollout, counts=torch.zeros_like(counts))
    asked.clear()
    loss.student_loss(silent, clips, critics, schedule=SCHEDULE, rng=rng)
    assert all(torch.equal(x, x_t) for x, _ in asked)
