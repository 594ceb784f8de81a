"""The rules of the verdict, on numbers that are made up."""

import math
import re

import pytest

from pipeline.laboratory.verdicts import (
    Judgement,
    Point,
    Rules,
    Verdict,
    distance,
    family,
    identify,
    judge,
    judge_none,
    over_processes,
)

OPTIMA = {
    "forward_kl": [{"m": 0.5, "s": 1.1}],
    "forward_kl_averaged": [{"m": 0.5, "s": 1.1}],
    "reverse_kl": [{"m": 0.15, "s": 0.63}, {"m": 0.9, "s": 0.63}],
    "reverse_kl_averaged": [{"m": 0.32, "s": 0.79}],
    "fisher_averaged_x0": [{"m": 0.487, "s": 0.979}],
    "reverse_kl_averaged_x0": [{"m": 0.492, "s": 0.993}],
}
RULE = {"tolerance": 0.02, "margin": 2.0}


def at(m, s, width=0.0):
    return Point({"m": m, "s": s}, {"m": width, "s": width})


def test_a_point_at_the_claimed_optimum_confirms_it():
    verdict = judge(at(0.155, 0.632), "reverse_kl", OPTIMA, **RULE)
    assert verdict.verdict is Verdict.CONFIRMED
    assert verdict.reason == "within 0.005 of reverse_kl"


def test_a_local_optimum_of_the_claimed_objective_counts_too():
    assert judge(at(0.905, 0.632), "reverse_kl", OPTIMA, **RULE).verdict is Verdict.CONFIRMED


def test_another_objective_of_the_same_family_at_the_same_place_does_no_harm():
    assert judge(at(0.5, 1.1), "forward_kl", OPTIMA, **RULE).verdict is Verdict.CONFIRMED


def test_one_of_another_family_at_the_same_place_leaves_it_open():
    optima = {**OPTIMA, "wasserstein": [{"m": 0.5, "s": 1.1}]}
    verdict = judge(at(0.5, 1.1), "forward_kl", optima, **RULE)
    assert verdict == Judgement(Verdict.UNDECIDED, "not separable from wasserstein, 0.000 apart")


def test_a_point_elsewhere_refutes_and_says_where_it_is():
    verdict = judge(at(0.321, 0.789), "reverse_kl", OPTIMA, **RULE)
    assert verdict.verdict is Verdict.REFUTED
    assert verdict.reason == "it settles on reverse_kl_averaged, 0.001 away; reverse_kl is 0.171 away"


def test_a_point_at_no_optimum_refutes():
    verdict = judge(at(-1.0, 0.2), "reverse_kl", OPTIMA, **RULE)
    assert verdict.verdict is Verdict.REFUTED
    assert verdict.reason.startswith("it settles on no optimum")


def test_optima_within_the_tolerance_of_each_other_are_not_separable():
    verdict = judge(at(0.487, 0.979), "fisher_averaged_x0", OPTIMA, **RULE)
    assert verdict.verdict is Verdict.UNDECIDED
    assert verdict.reason == "not separable from reverse_kl_averaged_x0, 0.014 apart"
    assert (
        judge(at(0.487, 0.979), "fisher_averaged_x0", OPTIMA, tolerance=0.01, margin=2.0).verdict
        is Verdict.CONFIRMED
    )


def test_near_the_claim_and_nothing_else_is_open():
    verdict = judge(at(0.15, 0.66), "reverse_kl", OPTIMA, **RULE)
    assert verdict == Judgement(Verdict.UNDECIDED, "reverse_kl is 0.030 away, and nothing is within 0.02")


def test_a_runner_up_nearly_as_near_leaves_it_open():
    optima = {"reverse_kl": [{"m": 0.0, "s": 1.0}], "jensen_shannon": [{"m": 0.03, "s": 1.0}]}
    verdict = judge(at(0.014, 1.0), "reverse_kl", optima, **RULE)
    assert verdict == Judgement(Verdict.UNDECIDED, "jensen_shannon is nearly as near, 0.016")


def test_seeds_that_disagree_leave_it_open():
    verdict = judge(at(0.15, 0.63, width=0.03), "reverse_kl", OPTIMA, **RULE)
    assert verdict.verdict is Verdict.UNDECIDED
    assert "seeds leave m open by 0.030" in verdict.reason


def test_one_seed_leaves_everything_open():
    for verdict in (
        judge(at(0.15, 0.63, math.inf), "reverse_kl", OPTIMA, **RULE),
        judge_none(at(-1.0, 0.2, math.inf), OPTIMA, **RULE),
    ):
        assert verdict == Judgement(Verdict.UNDECIDED, "one seed says nothing of its error")


def test_an_objective_without_optimum_decides_nothing():
    assert judge(at(0.15, 0.63), "wasserstein", OPTIMA, **RULE).reason == "wasserstein is not predicted here"


@pytest.mark.parametrize(
    ("m", "verdict"), [(-1.0, Verdict.CONFIRMED), (0.15, Verdict.REFUTED), (0.115, Verdict.UNDECIDED)]
)
def test_a_claim_of_no_divergence_wants_all_optima_far(m, verdict):
    assert judge_none(at(m, 0.63), OPTIMA, **RULE).verdict is verdict


def test_the_nearest_and_the_runner_up_lie_apart():
    found = identify({"m": 0.488, "s": 0.980}, OPTIMA, 0.02)
    assert (found.nearest, found.inseparable) == ("fisher_averaged_x0", ("reverse_kl_averaged_x0",))
    assert found.distance == pytest.approx(0.001)
    assert found.runner_up in ("forward_kl", "forward_kl_averaged")
    assert found.runner_up_distance == pytest.approx(0.12)


def test_without_predictions_nothing_is_identified():
    with pytest.raises(ValueError, match="optima must hold at least one objective"):
        identify({"m": 0.0}, {}, 0.02)


def test_the_interval_of_three_seeds_is_students():
    """4.303 standard errors: 4.303 * 0.01 / sqrt 3."""
    point = Point.of([{"m": 0.49}, {"m": 0.50}, {"m": 0.51}])
    assert point.mean["m"] == pytest.approx(0.5)
    assert point.half_width["m"] == pytest.approx(0.02484, abs=1e-5)
    assert Point.of([{"m": 0.49}]).half_width == {"m": math.inf}


def test_one_refutation_refutes_and_confirmation_needs_one():
    said = {v: Judgement(v, v.value) for v in Verdict}
    every = {"A": said[Verdict.CONFIRMED], "L": said[Verdict.REFUTED], "C": said[Verdict.UNDECIDED]}
    assert over_processes(every) == Judgement(Verdict.REFUTED, "L: refuted")
    assert over_processes({"A": every["A"], "C": every["C"]}) == Judgement(Verdict.CONFIRMED, "A: confirmed")
    assert over_processes({"C": every["C"]}) == Judgement(Verdict.UNDECIDED, "C: undecided")


def test_distances_are_the_largest_over_parameters():
    assert distance({"m": 0.0, "s": 1.0}, {"m": 0.1, "s": 0.7}) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l2_eps_bidirectional", "forward_kl"),
        ("teacher_forcing_reverse_kl_averaged", "reverse_kl"),
        ("softened_reverse_kl", "softened_reverse_kl"),
        ("wasserstein", "wasserstein"),
        ("mean_flow", "forward_kl"),
        ("teacher_forcing_mean_flow", "forward_kl"),
    ],
)
def test_objectives_belong_to_families(name, expected):
    assert family(name) == expected


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tolerance": 0.0}, "tolerance must be above 0, got 0.0"),
        ({"margin": 0.5}, "margin must be at least 1, got 0.5"),
        ({"keeps_above": 0.0}, "keeps_above must be in (0, 1], got 0.0"),
        ({"loses_below": 0.95}, "loses_below must be in (0, 0.95), got 0.95"),
    ],
)
def test_impossible_rules_are_refused(changes, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        Rules(**changes)


def test_learned_critics_have_a_tolerance_of_their_own():
    assert (Rules().within("exact"), Rules().within("learned")) == (0.02, 0.05)
