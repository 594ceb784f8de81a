"""The average of weights."""

import pytest
import torch
from torch import nn

from pipeline.models.ema import Ema


def test_the_average_follows_its_definition_and_trusts_no_initial_weights():
    student = nn.Linear(1, 1, bias=False)
    ema, expected = Ema(student, 0.5), student.weight.item()
    for step, value in enumerate([1.0, 3.0, -2.0, 5.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]):
        student.weight.data.fill_(value)
        ema.update(student, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert ema.average.weight.item() == pytest.approx(expected, rel=1e-6)
    assert not ema.average.weight.requires_grad


def test_a_decay_of_one_is_refused():
    with pytest.raises(ValueError, match=r"ema_decay must be in \[0, 1\), got 1.0"):
        Ema(nn.Linear(1, 1), 1.0)


def test_a_constant_student_is_its_own_average():
    student = nn.Linear(3, 2)
    ema = Ema(student, 0.9)
    for step in range(20):
        ema.update(student, step)
    assert torch.allclose(ema.average.weight, student.weight)
