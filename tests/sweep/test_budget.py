"""What a budget pays of a cell."""

import pytest

from pipeline.sweep.budget import BUDGETS, Operations, Price, SeenClips, Updates, WallTime


def test_updates_are_the_same_whatever_a_step_costs():
    assert Updates(7).num_steps(Price(64, 1e12, 1.0)) == Updates(7).num_steps(Price(320, 9e12, 5.0)) == 7


def test_other_budgets_pay_whole_steps_of_what_they_count():
    price = Price(clips=320, flops=3e11, seconds=0.4)
    assert SeenClips(1_000).num_steps(price) == 3
    assert Operations(1.0).num_steps(price) == 3
    assert WallTime(2.1).num_steps(price) == 5


def test_what_does_not_pay_a_step_is_refused():
    with pytest.raises(ValueError, match="num_clips must be at least the clips of one step, 320: got 319"):
        SeenClips(319).num_steps(Price(320))
    with pytest.raises(ValueError, match="tflop must be something that a step costs, got a step of 0 TFLOP"):
        Operations(1.0).num_steps(Price(320, flops=0.0))


def test_only_what_must_be_measured_is():
    assert {name for name, kind in BUDGETS.items() if kind.is_measured} == {"operations", "seconds"}
