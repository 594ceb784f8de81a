"""Estimators of the divergences between data and a student from draws of both, each with its interval."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.rules import at_least

BOTH_DENSITIES, CLASSIFIER_BOUND = "both_densities", "classifier_bound"
NORMAL_95 = 1.959964  # standard errors of half a 95 % interval
LN2 = math.log(2)
HIDDEN = (32, 32)  # units of the classifier
SURE = 1e-12  # probability below which a classifier is not believed
Points = Float[Tensor, "N F"]


@dataclass(frozen=True)
class Estimate:
    """A number in nats with the 95 % interval that its draws leave open; `estimator` is how it was found."""

    value: float
    low: float
    high: float
    estimator: str


class LogDensities(NamedTuple):
    """ln q of data and ln p of the student at the same points."""

    data: Float[Tensor, " N"]
    student: Float[Tensor, " N"]


def both_densities(at_data: LogDensities, at_student: LogDensities) -> dict[str, Estimate]:
    """All divergences where both densities are known, at draws of data and at draws of the student. Unbiased.

    E_q[ln q - ln p], E_p[ln p - ln q], and half of E_q[ln q - ln m] + E_p[ln p - ln m] with m = (p + q) / 2.
    """
    below, above = at_data.data - at_data.student, at_student.student - at_student.data
    halves = LN2 - F.softplus(-below), LN2 - F.softplus(-above)
    return {
        "forward_kl": mean_of(below, estimator=BOTH_DENSITIES),
        "reverse_kl": mean_of(above, estimator=BOTH_DENSITIES),
        "jensen_shannon": mean_of(*(half / 2 for half in halves), estimator=BOTH_DENSITIES),
    }


def classifier_bounds(data: Points, student: Points, law: GaussianMixture, *, seed: int) -> dict[str, Estimate]:
    """All divergences where the student is known by draws alone: lower bounds, from a classifier of both.

    Its logit T on a point was learnt without that point: two halves, each judged by what the other has taught. The
    classifier is given x, x^2 and ln q(x), which is exact. For any T, E_q[T] + 1 - E_p[exp T] is at most KL(q||p),
    arXiv:0809.0853, and ln 2 less its cross-entropy at most the Jensen-Shannon divergence. So in expectation every
    value is too low, by what the classifier has not found, and below 0 where it has found nothing; the interval is
    that of the bound, not of the divergence. |T| is held below ln N, so that no draw of N decides the exponential.

    Raises:
        ValueError: fewer than 16 draws.
    """
    at_least(16, num_draws=len(data))
    logits = _logits(data, student, law, seed).clamp(-math.log(len(data)), math.log(len(data)))
    of_data, of_student = logits.split(len(data))
    return {
        "forward_kl": mean_of(of_data + 1, -of_student.exp(), estimator=CLASSIFIER_BOUND),
        "reverse_kl": mean_of(1 - of_student, -(-of_data).exp(), estimator=CLASSIFIER_BOUND),
        "jensen_shannon": mean_of(
            (LN2 - F.softplus(-of_data)) / 2, (LN2 - F.softplus(of_student)) / 2, estimator=CLASSIFIER_BOUND
        ),
    }


def mean_of(*draws: Float[Tensor, " N"], estimator: str) -> Estimate:
    """The sum of the means of independent draws; the interval from their standard errors."""
    value = sum(each.double().mean().item() for each in draws)
    variance = sum(each.double().var().item() / len(each) for each in draws)
    half = NORMAL_95 * variance**0.5
    return Estimate(value, value - half, value + half, estimator)


def shares_of_modes(law: GaussianMixture, student: Points) -> tuple[float, ...]:
    """The share of every component of data in draws of a student, by the exact posterior."""
    return tuple(law.posterior(student.double()).mean(0).tolist())


def _logits(data: Points, student: Points, law: GaussianMixture, seed: int) -> Tensor:
    """ln of the odds that a point is of data, of every point of both, held out."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = torch.cat([data, student]).double()
    features = torch.cat([x, x.square(), law.log_density(x)[:, None]], 1).numpy()
    labels = np.repeat([1, 0], len(data))
    network = MLPClassifier(
        HIDDEN,
        alpha=1e-2,
        learning_rate_init=3e-3,
        max_iter=60,
        early_stopping=True,
        random_state=seed % 2**32,
    )
    folds = StratifiedKFold(2, shuffle=True, random_state=seed % 2**32)
    classifier = make_pipeline(StandardScaler(), network)
    odds = cross_val_predict(classifier, features, labels, cv=folds, method="predict_proba")
    of_student, of_data = torch.as_tensor(odds).clamp(SURE, 1).log().T
    return of_data - of_student


def as_plain_estimates(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float | str]]:
    """For the metrics of a unit."""
    return {name: vars(estimate) for name, estimate in estimates.items()}
