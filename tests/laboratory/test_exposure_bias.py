"""Exposure bias on an autoregression, by the sampler of the grid, against closed forms (a = .9, tau^2 = .05)."""

import math
from dataclasses import replace

import pytest
import torch

from pipeline.laboratory.exposure import by_frame, predicted_variance, roll_out
from pipeline.laboratory.run import ExposureRun
from tests.laboratory.test_measure import RUN, run_to_the_end
from tests.processes import PROCESSES

RUN_OF = ExposureRun()
TRUE = {"s1": 1.0, "c": 0.9, "s": math.sqrt(1 - 0.9**2)}
ADAPTED = {"s1": math.sqrt(0.95), "c": 0.9, "s": math.sqrt(0.14)}  # what self forcing learns


def rolled(parameters, sampler, num_frames=25):
    rng = torch.Generator().manual_seed(3)
    x = roll_out(parameters, sampler, num_frames=num_frames, num_rollouts=2**16, rng=rng)
    return by_frame(x, RUN_OF.slope)


def test_hidden_noise_piles_up_where_students_never_met_it():
    """v_f = a^2f v_0 + (b^2 + tau^2)(1 - a^2f) / (1 - a^2), here from v_0 = 1 + tau^2; the limit is 1.2632."""
    found = rolled(TRUE, RUN_OF.sampler())["variance"]
    expected = [0.81**f * 1.05 + 0.24 * (1 - 0.81**f) / 0.19 for f in range(25)]
    assert found == pytest.approx(expected, abs=0.03)
    assert expected[24] == pytest.approx(1.2618, abs=1e-4)
    assert predicted_variance(TRUE, RUN_OF.sampler(), 25) == pytest.approx(expected, rel=1e-12)


def test_the_reverse_kl_grows_by_as_much_every_frame():
    """.014772 nats: 1/2 (r - 1 - ln r), r = .24 / .19."""
    assert rolled(TRUE, RUN_OF.sampler())["reverse_kl_by_frame"] == pytest.approx([0.014772] * 24, abs=0.002)


@pytest.mark.parametrize(
    ("context_variance", "limit", "correlation"),
    [(0.05, 1.1885, 0.857), (0.1, 1.1512, 0.818), (0.2, 1.1143, 0.75)],
)
def test_noise_on_the_context_limits_the_error_at_the_price_of_correlation(context_variance, limit, correlation):
    """1 + tau^2 / (1 - k^2), k = a / (1 + n^2); without the hidden noise the lag-1 correlation is k."""
    sampler = RUN_OF.sampler(context_variance)
    found = rolled(TRUE, sampler)
    assert found["variance"][24] == pytest.approx(limit, abs=0.03)
    assert predicted_variance(TRUE, sampler, 200)[199] == pytest.approx(limit, abs=1e-4)
    silent = replace(RUN_OF, hidden_variance=0.0).sampler(context_variance)
    assert rolled(TRUE, silent, 8)["correlation"][-1] == pytest.approx(correlation, abs=0.005)


def test_a_student_that_has_met_the_noise_makes_no_error():
    found = rolled(ADAPTED, RUN_OF.sampler())
    assert found["variance"] == pytest.approx([1.0] * 25, abs=0.03)
    assert max(found["reverse_kl_by_frame"]) < 1e-3


@pytest.mark.slow
def test_self_forcing_learns_to_leave_room_for_the_noise_and_teacher_forcing_does_not():
    training = replace(RUN.training, num_steps=400, batch_size=2048, report_every=200, checkpoint_every=400)
    units = RUN_OF.units(training, seed=0, num_clips=2**17)
    found = {name: run_to_the_end(units[name])[0] for name in ("self_forcing", "teacher_forcing")}
    assert found["self_forcing"]["parameters"] == pytest.approx(ADAPTED, abs=0.02)
    assert found["teacher_forcing"]["parameters"] == pytest.approx(TRUE, abs=0.02)
    last = {name: metrics["rollouts"][name]["variance"][-1] for name, metrics in found.items()}
    assert last["self_forcing"] == pytest.approx(1.0, abs=0.06)
    assert last["teacher_forcing"] == pytest.approx(1.26, abs=0.08)


def test_only_an_autoregression_of_order_one_is_rolled_out():
    unit = RUN_OF.units(RUN.training, seed=0, num_clips=16)["self_forcing"]
    measure = replace(unit.measure, process=PROCESSES["L"])
    with pytest.raises(ValueError, match="process must be an autoregression of order one"):
        replace(unit, measure=measure)
    with pytest.raises(ValueError, match="num_frames must be at least 2, got 1"):
        replace(unit, num_frames=1)
    with pytest.raises(ValueError, match="hidden_variance must be at least 0"):
        ExposureRun(hidden_variance=-1.0)
