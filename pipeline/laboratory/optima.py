"""The predicted optimum of a student under every objective: several starts, then Newton at the finest precision."""

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize, root

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.laboratory.moments import of_moments
from pipeline.laboratory.objective import Objective, Value
from pipeline.laboratory.objectives import OBJECTIVES
from pipeline.laboratory.quadrature import CHECK, COARSE, FINE, Precision
from pipeline.laboratory.reached import Standing
from pipeline.models.linear_gaussian import Form, check_student
from pipeline.rules import at_least, one_of

Vector = np.ndarray  # of the student's parameters, in the order of their names

SCALES = (1.0, 0.6)  # of the standard deviations of a start
MAX_SUBSETS = 15  # of components whose moments are starts; of more components only single ones and all
NUM_SCREENED = 4  # starts of an averaged objective, beside the optima of an easier one
SAME = 3e-3  # parameters closer than this are one optimum
FLAT = 1e-6  # curvature, relative to the largest, below which an optimum does not fix a direction
DIFFERENCE = 1e-4  # of parameters, in central differences of the gradient
CONVERGED = 1e-8  # last step of Newton
MAX_NEWTON = 30
MAX_STEP = 0.2  # of Newton, beyond which it has left the optimum
FARTHEST = 1e12  # of parameters, beyond which their powers overflow
# Of a law without a density, of transport that overflows, of a slope that is no number
NUMERICAL = (torch.linalg.LinAlgError, np.linalg.LinAlgError, ArithmeticError)  # pyright: ignore[reportPrivateImportUsage]


@dataclass(frozen=True)
class Optimum:
    """Where an objective is least, or where a field vanishes and training stays."""

    parameters: dict[str, float]
    value: float | None  # nats, or what the objective is measured in; of a field there is none


@dataclass(frozen=True)
class Prediction:
    """The best optimum, the others, and how far integration may have moved the best.

    integration_error: largest change of a parameter between two precisions. flat: some combination of parameters
    is not fixed by the objective, and only the others mean something. forward_kl and reverse_kl: of clean clips;
    none where a standard deviation is 0. kept: the share of each component of data among the student's clips.
    """

    best: Optimum
    others: tuple[Optimum, ...]
    is_field: bool
    integration_error: float
    flat: bool
    forward_kl: float | None
    reverse_kl: float | None
    kept: tuple[float, ...]


class NoOptimumError(Exception):
    """An objective without an optimum among these students, from any start, or where numbers fail; says why."""


@dataclass(frozen=True, eq=False)
class _Search:
    """One objective at one precision: its value and its slope, as functions of the parameters."""

    form: Form
    value: Value

    def both(self, at: Vector) -> tuple[float, Vector]:
        """Raises NUMERICAL where a law degenerates."""
        if not np.abs(at).max() < FARTHEST:
            raise ArithmeticError(f"parameters run away to {at.tolist()}")
        parameters = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in at]
        frozen = self.form.chain(*(p.detach() for p in parameters))
        result = self.value(self.form.chain(*parameters), frozen)
        slopes = torch.autograd.grad(result, parameters, allow_unused=True)
        slope = np.array([0.0 if slope is None else slope.item() for slope in slopes])
        if not np.isfinite([result.item(), *slope]).all():
            raise ArithmeticError(f"no finite value or slope at {at.tolist()}")
        return result.item(), slope

    def guarded(self, at: Vector) -> tuple[float, Vector]:
        """Where a law degenerates a search must turn back."""
        try:
            return self.both(at)
        except NUMERICAL:
            return np.inf, np.zeros_like(at)

    def slope(self, at: Vector) -> Vector:
        return self.both(at)[1]

    def curvature(self, at: Vector) -> np.ndarray:
        """d slope / d parameters by central differences; symmetric if the slope is a gradient."""
        columns = []
        for step in DIFFERENCE * np.eye(len(at)):
            columns.append((self.slope(at + step) - self.slope(at - step)) / (2 * DIFFERENCE))
        return np.stack(columns, axis=1)


def objectives_for(data: GaussianMixture) -> dict[str, Objective]:
    """Those that mean something for these data."""
    return {name: objective for name, objective in OBJECTIVES.items() if objective.applies(data)}


class Laboratory:
    """A process and a student: where every objective is least, the easier ones first.

    num_pixels: independent ones, with which values grow.
    """

    def __init__(self, data: GaussianMixture, student: str, *, num_pixels: int = 1) -> None:
        """Raises ValueError for an unknown student, or one that cannot have these frames."""
        at_least(1, num_pixels=num_pixels)
        self.data, self.student, self.num_pixels = data, student, num_pixels
        self.form = check_student(student, data.num_frames)
        self._optima: dict[str, list[Vector]] = {}
        self._standing = Standing(data, num_pixels=num_pixels)

    def predict(self, name: str) -> Prediction:
        """The optimum of an objective.

        Raises:
            ValueError: an unknown objective, or one without meaning for these data.
            NoOptimumError: these students have none, or none that numbers reach.
        """
        objectives = objectives_for(self.data)
        one_of(objectives, objective=name)
        try:
            precisions = {p: self._at(objectives[name], p) for p in (COARSE, CHECK, FINE)}
            optima = self._optima[name] = self._found(objectives[name], precisions)
            return self._describe(objectives[name], optima, precisions)
        except NUMERICAL as error:
            raise NoOptimumError(" ".join(str(error).split())) from error

    def _at(self, objective: Objective, precision: Precision) -> _Search:
        return _Search(self.form, objective.build(self.data, precision))

    def _found(self, objective: Objective, precisions: Mapping[Precision, _Search]) -> list[Vector]:
        if objective.easier is not None and objective.easier not in self._optima:
            with contextlib.suppress(NoOptimumError):  # then the other starts alone
                self.predict(objective.easier)
        easier = self._optima.get(objective.easier or "", [])
        starts = _starts(self.data, self.form)
        failure: Exception | None = None
        for precision in (COARSE, CHECK):  # rough numbers lose their way among sharp laws
            try:
                optima = _search(objective, precisions, precision, starts, easier, self.form)
            except NUMERICAL as error:
                failure = error
                continue
            if optima:
                return optima
        if failure is not None:  # there may be one, but numbers do not reach it
            raise failure
        raise NoOptimumError(f"from no start was a student ({', '.join(self.form.names)}) found that is an optimum")

    def _describe(
        self, objective: Objective, optima: Sequence[Vector], precisions: Mapping[Precision, _Search]
    ) -> Prediction:
        best, fine, check = optima[0], precisions[FINE], precisions[CHECK]
        curvature = precisions[COARSE].curvature(best)
        sizes = np.abs(np.linalg.eigvals(curvature))
        moved = np.linalg.pinv(curvature, rcond=FLAT) @ (check.slope(best) - fine.slope(best))
        flat = bool(sizes.min() < FLAT * sizes.max())
        others = [self._optimum(objective, at, check) for at in optima[1:]]
        optimum = self._optimum(objective, best, fine)
        reached = self._standing.of(self.form, optimum.parameters)
        return Prediction(
            best=optimum,
            others=() if flat else tuple(others),
            is_field=objective.is_field,
            integration_error=float(np.abs(moved).max()),
            flat=flat,
            forward_kl=reached.forward_kl,
            reverse_kl=reached.reverse_kl,
            kept=reached.kept,
        )

    def _optimum(self, objective: Objective, at: Vector, search: _Search) -> Optimum:
        value = None if objective.is_field else self.num_pixels * search.both(at)[0]
        return Optimum(dict(zip(self.form.names, at.tolist(), strict=True)), value)


def _search(
    objective: Objective,
    precisions: Mapping[Precision, _Search],
    precision: Precision,
    starts: list[Vector],
    easier: Sequence[Vector],
    form: Form,
) -> list[Vector]:
    """All optima found by numbers of one precision, best first; the best at the finest."""
    rough, better = precisions[precision], precisions[CHECK]
    if objective.is_field:
        found = [at for at in (_root(rough, start) for start in [*easier, starts[0]]) if at is not None]
    else:
        if easier:
            starts = [*easier, *sorted(starts, key=lambda at: rough.guarded(at)[0])[:NUM_SCREENED]]
        found = [minimize(rough.guarded, start, jac=True, method="BFGS").x for start in starts]
    optima: list[Vector] = []
    failure: Exception | None = None
    for at in _distinct(found, form):
        try:
            curvature = rough.curvature(at)
            polished = _newton(better, at, curvature) if _is_stable(curvature) else None
        except NUMERICAL as error:
            failure = error
            continue
        if polished is not None:
            optima = _distinct([*optima, polished], form)
    if not objective.is_field:
        optima.sort(key=lambda at: better.both(at)[0])
    if not optima:
        if failure is not None:
            raise failure
        return []
    finest = _newton(precisions[FINE], optima[0], rough.curvature(optima[0]))
    if finest is None:
        raise ArithmeticError(f"the optimum at {optima[0].tolist()} is lost at the finest precision")
    return [_canonical(finest, form), *optima[1:]]


def _root(search: _Search, start: Vector) -> Vector | None:
    """A zero of the slope, unless the way there leads where a law degenerates."""
    try:
        found = root(search.slope, start)
    except NUMERICAL:
        return None
    return found.x if found.success else None


def _newton(search: _Search, at: Vector, curvature: np.ndarray) -> Vector | None:
    """The zero of the slope next to `at`, first with the curvature of a rougher precision, then with its own."""
    for known in (curvature, None):
        inverse = np.linalg.pinv(search.curvature(at) if known is None else known, rcond=FLAT)
        now = at
        for _ in range(MAX_NEWTON):
            step = inverse @ search.slope(now)
            now = now - step
            if not np.abs(step).max() < MAX_STEP:
                break
            if np.abs(step).max() < CONVERGED:
                return now
    return None


def _is_stable(curvature: np.ndarray) -> bool:
    values = np.linalg.eigvals(curvature).real
    return bool(values.min() > -FLAT * np.abs(values).max())


def _distinct(found: Sequence[Vector], form: Form) -> list[Vector]:
    kept: list[Vector] = []
    for at in (_canonical(x, form) for x in found):
        if all(np.abs(at - other).max() > SAME for other in kept):
            kept.append(at)
    return kept


def _canonical(at: Vector, form: Form) -> Vector:
    """Standard deviations have no sign."""
    return np.array([abs(x) if name.startswith("s") else x for name, x in zip(form.names, at, strict=True)])


def _starts(data: GaussianMixture, form: Form) -> list[Vector]:
    """The moments of data, of its components and of groups of them, and the same narrowed."""
    count = data.num_components
    sizes = range(count, 0, -1) if 2**count - 1 <= MAX_SUBSETS else (count, 1)
    starts = []
    for size in sizes:
        for group in itertools.combinations(range(count), size):
            shares = data.shares[list(group)]
            part = GaussianMixture(shares / shares.sum(), data.means[list(group)], data.factors[list(group)])
            starts.extend(np.array(of_moments(part, form, scale)) for scale in SCALES)
    return starts
