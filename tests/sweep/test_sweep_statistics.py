"""Intervals against closed forms and simulations; what seeds cannot tell is not told."""

import math
from statistics import mean

import numpy as np
import pytest
from scipy.stats import ttest_ind

from pipeline.sweep.published import PUBLISHED
from pipeline.sweep.statistics import (
    PERCENTILE_COVERAGE,
    agreement,
    drawn_means,
    intervals,
    pairs,
    probability_interval,
    ranks,
)

CONFIDENCE = 0.95
DRAWS = {"confidence": CONFIDENCE, "num_draws": 500, "seed": 0}


def bootstrap(scores, *, num_bootstraps=2000, seed=0):
    return intervals(scores, confidence=CONFIDENCE, num_bootstraps=num_bootstraps, seed=seed)


def normal(rng, num_seeds, **means):
    return {cell: list(mean + rng.normal(size=num_seeds)) for cell, mean in means.items()}


def backwards(scores):
    return dict(reversed(scores.items()))


@pytest.fixture
def numbers():
    return np.random.default_rng(0)


@pytest.fixture
def apart(numbers):
    """Five cells, each far below the next, with different numbers of seeds."""
    return {f"cell{i}": list(100.0 * i + numbers.normal(size=3 + i)) for i in range(5)}


def test_interval_of_three_seeds_is_their_range(numbers):
    values = list(numbers.normal(size=3))
    assert bootstrap({"a": values})["a"] == pytest.approx((mean(values), min(values), max(values), 3))


def test_interval_of_many_seeds_is_that_of_the_normal_law(numbers):
    values = numbers.normal(size=2000)
    found = bootstrap({"a": list(values)})["a"]
    radius = 1.96 * values.std() / math.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert [found.mean - found.low, found.high - found.mean] == pytest.approx([radius, radius], rel=0.1)


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_interval_covers_as_little_as_its_docstring_says(numbers, num_seeds):
    cells = {f"cell{i}": list(numbers.normal(size=num_seeds)) for i in range(1000)}
    hits = [one.low <= 0 <= one.high for one in bootstrap(cells, num_bootstraps=500).values()]
    assert mean(hits) == pytest.approx(PERCENTILE_COVERAGE[num_seeds], abs=0.045)  # three standard errors


def test_interval_of_one_seed_is_infinite():
    assert bootstrap({"a": [1.5]})["a"] == (1.5, -math.inf, math.inf, 1)


def test_interval_grows_with_confidence(numbers):
    scores = {"a": list(numbers.normal(size=20))}
    narrow, wide = (intervals(scores, confidence=c, num_bootstraps=2000, seed=0)["a"] for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_results_depend_on_the_seed_and_not_on_the_order_of_cells(apart):
    published = {cell: -float(i) for i, cell in enumerate(apart)}
    turned = backwards(apart)
    assert bootstrap(apart) == bootstrap(turned) != bootstrap(apart, seed=1)
    assert pairs(apart, confidence=CONFIDENCE) == pairs(turned, confidence=CONFIDENCE)
    assert ranks(apart, **DRAWS) == ranks(turned, **DRAWS)
    assert agreement(apart, published, **DRAWS) == agreement(turned, backwards(published), **DRAWS)


def test_interval_and_draws_of_a_cell_are_the_same_in_any_company(apart):
    alone = {"cell3": apart["cell3"]}
    assert bootstrap(alone)["cell3"] == bootstrap(apart)["cell3"]
    among = drawn_means(apart, ["cell0", "cell3"], num_draws=9, seed=0)
    np.testing.assert_array_equal(drawn_means(alone, ["cell3"], num_draws=9, seed=0)[:, 0], among[:, 1])


def test_pairs_far_apart_are_separated_and_the_lower_one_is_better():
    first, second, third = pairs(
        {"x": [90.0, 91.0, 92.0], "y": [1.0, 2.0, 3.0], "z": [2.0, 3.0, 4.0]}, confidence=0.95
    )
    assert (first.a, first.b, first.verdict, first.probability, first.difference) == ("x", "y", "b", 0.0, 89.0)
    assert (second.a, second.b, second.verdict) == ("x", "z", "b")
    assert (third.a, third.b, third.verdict, third.difference) == ("y", "z", "not separated", -1.0)
    assert third.probability == pytest.approx(7 / 9)  # six wins, two ties that count half
    turned = pairs({"a": [1.0, 2.0, 3.0], "x": [90.0, 91.0, 92.0]}, confidence=0.95)
    assert turned[0].verdict == "a"
    assert turned[0].probability == 1


def test_pair_alone_is_welchs_test(numbers):
    a, b = numbers.normal(size=4), numbers.normal(2, 5, size=6)
    (found,) = pairs({"a": list(a), "b": list(b)}, confidence=0.9)
    test = ttest_ind(a, b, equal_var=False)
    assert found.p_adjusted == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.9)))


def test_pairs_are_corrected_for_their_number(apart):
    for one in pairs(apart, confidence=CONFIDENCE):
        (alone,) = pairs({cell: apart[cell] for cell in (one.a, one.b)}, confidence=CONFIDENCE)
        assert one.p_adjusted == pytest.approx(min(1, 10 * alone.p_adjusted))
        assert one.low < alone.low < alone.high < one.high
        assert one.probability == alone.probability
        assert one.probability_high - one.probability_low > alone.probability_high - alone.probability_low


def test_pairs_of_equal_cells_are_seldom_separated_whatever_their_spread(numbers):
    spread = np.geomspace(1, 10, 5)
    wrong = 0
    for _ in range(100):
        scores = {f"cell{i}": list(sd * numbers.normal(size=3)) for i, sd in enumerate(spread)}
        found = pairs(scores, confidence=CONFIDENCE)
        assert all((one.verdict == "not separated") == (one.p_adjusted >= 1 - CONFIDENCE) for one in found)
        wrong += any(one.verdict != "not separated" for one in found)
    assert wrong / 100 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)


@pytest.mark.parametrize("unknown", [[7.0], [7.0, 7.0, 7.0]])
def test_pair_with_a_cell_of_unknown_spread_is_not_separated(unknown):
    (found,) = pairs({"a": unknown, "b": [100.0, 101.0, 102.0]}, confidence=CONFIDENCE)
    assert (found.difference, found.low, found.high, found.p_adjusted) == (-94, -math.inf, math.inf, 1)
    assert found.verdict == "not separated"
    assert found.probability_low < found.probability == found.probability_high == 1


def test_pairs_of_one_cell_are_none():
    assert pairs({"a": [1.0, 2.0]}, confidence=CONFIDENCE) == []


def test_probability_interval_turns_with_its_estimate_and_shrinks_with_seeds():
    low, high = probability_interval(7 / 9, 3, 3, confidence=0.95)
    assert probability_interval(2 / 9, 3, 3, confidence=0.95) == pytest.approx((1 - high, 1 - low))
    assert 0 < low < 7 / 9 < high < 1
    certain = [probability_interval(1.0, num, num, confidence=0.95) for num in (3, 10, 100)]
    assert [ends[1] for ends in certain] == [1, 1, 1]
    assert 0.5 < certain[0][0] < certain[1][0] < certain[2][0] < 1


def test_probability_interval_of_single_draws_is_wilsons():
    z2 = 1.959964**2  # (1 - p)^2 = z^2 p (1 - p), of one comparison
    assert probability_interval(1.0, 1, 1, confidence=0.95) == pytest.approx((1 / (1 + z2), 1))


def test_ranks_of_cells_far_apart_are_certain(apart):
    assert ranks(apart, **DRAWS) == [(f"cell{i}", i + 1, i + 1, i + 1) for i in range(5)]


def test_ranks_of_equal_cells_are_open(numbers):
    for one in ranks(normal(numbers, 3, a=0, b=0, c=0, d=0), **DRAWS):
        assert one.high - one.low >= 2


def test_ranks_hold_the_true_ones(numbers):
    steps = {f"cell{i}": 0.5 * i for i in range(6)}
    hits = []
    for _ in range(100):
        found = {one.cell: one for one in ranks(normal(numbers, 3, **steps), **DRAWS)}
        hits += [found[cell].low <= i + 1 <= found[cell].high for i, cell in enumerate(steps)]
    assert mean(hits) >= 0.95


def test_rank_of_a_cell_with_one_seed_is_open_and_may_shift_the_others(apart):
    found = {one.cell: one for one in ranks({**apart, "single": [-1.0]}, **DRAWS)}
    assert found["single"] == ("single", 1, 1, 6)
    assert [(found[f"cell{i}"].low, found[f"cell{i}"].high) for i in range(5)] == [(i + 1, i + 2) for i in range(5)]
    assert ranks({"single": [1.0]}, **DRAWS) == [("single", 1, 1, 1)]


@pytest.mark.parametrize(("sign", "tau"), [(-1, 1), (1, -1)])
def test_agreement_is_one_for_the_same_order_and_minus_one_for_the_reverse(apart, sign, tau):
    published = {cell: float(sign * i) for i, cell in enumerate(apart)} | {"elsewhere": 3.0}
    found = agreement(apart, published, **DRAWS)
    assert found[:3] == pytest.approx((tau, tau, tau))
    assert found.cells == tuple(apart)
    assert found.p_value == pytest.approx(2 / math.factorial(len(apart)))  # the two extreme orders of all


def test_agreement_with_the_published_order_is_counted_by_pairs(numbers):
    published = PUBLISHED["frame_wise"]
    theirs = sorted(published, key=published.__getitem__, reverse=True)
    theirs[0], theirs[1] = theirs[1], theirs[0]
    scores = normal(numbers, 3, **{cell: 1000 * i for i, cell in enumerate(theirs)})
    found = agreement(scores, published, **DRAWS)
    assert found[:3] == pytest.approx((1 - 2 / 21,) * 3)


def test_agreement_of_cells_too_close_to_tell_is_uncertain(numbers):
    published = {"a": 3.0, "b": 2.0, "c": 1.0}
    found = agreement(normal(numbers, 3, a=0, b=0, c=0), published, **DRAWS)
    assert found.low < 0 < found.high
    single = agreement({"a": [1.0], "b": [5.0, 6.0], "c": [80.0, 81.0]}, published, **DRAWS)
    assert single[:3] == pytest.approx((1, -1, 1))


def test_agreement_of_fewer_than_two_common_cells_is_refused():
    with pytest.raises(ValueError, match=r"at least 2, got 1: a$"):
        agreement({"a": [1.0, 2.0], "b": [1.0, 2.0]}, {"a": 1.0, "c": 2.0}, **DRAWS)
    with pytest.raises(ValueError, match=r"at least 2, got 0: none$"):
        agreement({"b": [1.0, 2.0]}, {"a": 1.0}, **DRAWS)


@pytest.mark.parametrize(
    ("bad", "said"),
    [([], "at least one for every cell, got none for dmd"), ([1.0, math.nan], "finite, got 1.0, nan for dmd")],
)
def test_cell_without_a_usable_score_is_refused_by_name(bad, said):
    scores = {"gan": [1.0, 2.0], "dmd": bad}
    for refuse in (
        lambda: bootstrap(scores),
        lambda: pairs(scores, confidence=CONFIDENCE),
        lambda: ranks(scores, **DRAWS),
        lambda: agreement(scores, {"gan": 1.0, "dmd": 2.0}, **DRAWS),
    ):
        with pytest.raises(ValueError, match=said):
            refuse()


def test_confidence_must_be_a_share():
    with pytest.raises(ValueError, match="confidence must be in"):
        pairs({"a": [1.0, 2.0]}, confidence=95.0)
