"""Estimators of divergences against pairs whose divergence is known: unbiased, or a bound from below."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from pipeline.laboratory import estimators_bias
from pipeline.laboratory.estimators import LogDensities, both_densities, classifier_bounds, shares_of_modes
from pipeline.laboratory.estimators_bias import PAIRS, EstimatorBias
from tests.laboratory.test_measure import run_to_the_end
from tests.processes import PROCESSES

DIVERGENCES = ["forward_kl", "reverse_kl", "jensen_shannon"]


def draws(name, number, seed=0):
    """Of data and of the student of a pair."""
    rng = torch.Generator().manual_seed(seed)
    return PAIRS[name].process.law.sample(number, rng), PAIRS[name].law.sample(number, rng)


def by_densities(name, number, seed=0):
    data, student = PAIRS[name].process.law, PAIRS[name].law
    at = (LogDensities(data.log_density(x), student.log_density(x)) for x in draws(name, number, seed))
    return both_densities(*at)


@pytest.mark.parametrize("name", [name for name in PAIRS if name.startswith("gaussian")])
def test_exact_divergences_of_gaussians_are_the_closed_form(name):
    data, student = PAIRS[name].process.law, PAIRS[name].law
    p, q = (MultivariateNormal(law.means[0], scale_tril=law.factors[0]) for law in (student, data))
    exact = PAIRS[name].exact()
    assert exact["forward_kl"] == pytest.approx(kl_divergence(q, p).item(), rel=1e-9)
    assert exact["reverse_kl"] == pytest.approx(kl_divergence(p, q).item(), rel=1e-9)


@pytest.mark.parametrize("name", PAIRS)
def test_both_densities_find_every_divergence_within_their_interval(name):
    found, exact = by_densities(name, 40000), PAIRS[name].exact()
    for divergence in DIVERGENCES:
        half = found[divergence].high - found[divergence].value
        assert found[divergence].value == pytest.approx(exact[divergence], abs=2 * half)  # four standard errors
        assert half < 0.06 * exact[divergence]


def test_the_interval_holds_the_divergence_as_often_as_it_says():
    exact = PAIRS["gaussian_4"].exact()
    held = dict.fromkeys(DIVERGENCES, 0)
    for seed in range(200):
        found = by_densities("gaussian_4", 500, seed)
        for name in DIVERGENCES:
            held[name] += found[name].low <= exact[name] <= found[name].high
    assert all(175 <= count <= 199 for count in held.values()), held  # 190 with a standard deviation of 3


@pytest.mark.parametrize("name", ["gaussian_8", "mixture_2"])
def test_a_classifier_bounds_every_divergence_from_below(name):
    law, exact = PAIRS[name].process.law, PAIRS[name].exact()
    found = classifier_bounds(*draws(name, 4096), law, seed=0)
    for divergence in DIVERGENCES:
        assert found[divergence].low <= exact[divergence]
        assert found[divergence].value >= 0.6 * exact[divergence]


def test_a_classifier_finds_nothing_between_draws_of_one_law():
    law, rng = PROCESSES["D"].law, torch.Generator().manual_seed(0)
    found = classifier_bounds(law.sample(2048, rng), law.sample(2048, rng), law, seed=0)
    assert max(found[divergence].low for divergence in DIVERGENCES) <= 0
    assert max(abs(found[divergence].value) for divergence in DIVERGENCES) < 0.1


def test_a_classifier_needs_some_draws():
    law, rng = PROCESSES["D"].law, torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="num_draws must be at least 16, got 4"):
        classifier_bounds(law.sample(4, rng), law.sample(4, rng), law, seed=0)


def test_modes_are_counted_by_the_exact_posterior():
    law = replace(PROCESSES["D"], num_frames=4).law
    x = law.sample(20000, torch.Generator().manual_seed(0))
    assert shares_of_modes(law, x) == pytest.approx((0.75, 0.25), abs=0.01)
    one = law.means[1] + torch.randn(500, 4, dtype=torch.float64) @ law.factors[1].mT
    assert shares_of_modes(law, one)[1] > 0.9


def test_the_bias_of_a_bound_falls_with_the_draws_and_that_of_densities_is_none(monkeypatch):
    monkeypatch.setattr(estimators_bias, "PAIRS", {"gaussian_8": PAIRS["gaussian_8"]})
    metrics, seen = run_to_the_end(EstimatorBias(seed=0, num_samples=(256, 2048), num_repeats=3))
    rows = {(row["divergence"], row["estimator"], row["num_samples"]): row for row in metrics["estimates"]}
    assert len(rows) == len(metrics["estimates"]) == 12
    assert (seen[-1].step, seen[-1].num_steps) == (2, 2)
    few, many = (rows["jensen_shannon", "classifier_bound", number] for number in (256, 2048))
    assert few["exact"] - few["estimate"] > 2 * (many["exact"] - many["estimate"]) > 0
    unbiased = rows["forward_kl", "both_densities", 2048]
    assert unbiased["low"] <= unbiased["exact"] <= unbiased["high"]
    assert unbiased["dimensions"] == 8


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(ValueError, match="num_repeats must be at least 2, got 1"):
        EstimatorBias(seed=0, num_repeats=1)
    with pytest.raises(ValueError, match=r"num_samples\[0\] must be at least 16, got 8"):
        EstimatorBias(seed=0, num_samples=(8,))
    with pytest.raises(ValueError, match="parameters must be s1, c, s, got"):
        replace(PAIRS["gaussian_2"], parameters=(1.0,))
