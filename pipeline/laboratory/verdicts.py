"""Which optimum a cell has settled on, and what that says of a claim: by rules that stand before the run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from pipeline.rules import above, at_least, within

Parameters = Mapping[str, float]
Optima = Mapping[str, Sequence[Parameters]]  # of every objective, its best and other local ones
SAME = 1e-3  # in every parameter: optima this close coincide
FAMILIES = ("softened_reverse_kl", "reverse_kl", "forward_kl", "jensen_shannon", "l2", "mean_flow")
STUDENT_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # 97.5 %


@dataclass(frozen=True)
class Rules:
    """When a measured point counts as an optimum. Distances are the largest over parameters.

    tolerance: with exact critics; learned_tolerance: with learned ones. margin: how many times farther than the
    optimum that it counts as every other one must be. keeps_above, loses_below: times the share of data from which
    on a student keeps, and up to which it loses, the mode that is rarest in data.
    """

    tolerance: float = 0.02
    learned_tolerance: float = 0.05
    margin: float = 2.0
    keeps_above: float = 0.95
    loses_below: float = 0.75

    def __post_init__(self) -> None:
        above(0, tolerance=self.tolerance, learned_tolerance=self.learned_tolerance)
        at_least(1, margin=self.margin)
        within(0, 1, open_low=True, keeps_above=self.keeps_above)
        within(0, self.keeps_above, open_low=True, open_high=True, loses_below=self.loses_below)

    def within(self, critics: str) -> float:
        """The tolerance for these critics."""
        return {"exact": self.tolerance, "learned": self.learned_tolerance}[critics]


class Verdict(Enum):
    """On a claim."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Judgement:
    """A verdict and the reason for it, a clause."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Point:
    """What the seeds have measured: the mean of every parameter, and half the width of its 95 % interval."""

    mean: dict[str, float]
    half_width: dict[str, float]

    @staticmethod
    def of(measured: Sequence[Parameters]) -> "Point":
        """Of the seeds' parameters; of one the interval is without end, of more than ten the normal's is taken."""
        count = len(measured)
        mean = {name: sum(at[name] for at in measured) / count for name in measured[0]}
        if count == 1:
            return Point(mean, dict.fromkeys(mean, math.inf))
        spread = {
            name: math.sqrt(sum((at[name] - middle) ** 2 for at in measured) / (count - 1))
            for name, middle in mean.items()
        }
        factor = STUDENT_T.get(count, 1.96) / math.sqrt(count)
        return Point(mean, {name: factor * value for name, value in spread.items()})


@dataclass(frozen=True)
class Identified:
    """The nearest optimum and the nearest of those that lie apart from it, with their distances.

    inseparable: other objectives whose optimum is within the tolerance of the nearest one.
    """

    nearest: str
    distance: float
    runner_up: str | None
    runner_up_distance: float | None
    inseparable: tuple[str, ...]


def distance(a: Parameters, b: Parameters) -> float:
    """The largest over parameters."""
    return max(abs(a[name] - b[name]) for name in a)


def to_objective(point: Parameters, optima: Sequence[Parameters]) -> float:
    """To the nearest of its optima."""
    return min(distance(point, optimum) for optimum in optima)


def identify(point: Parameters, optima: Optima, tolerance: float) -> Identified:
    """What lies nearest to a measured point. Raises ValueError where nothing is predicted."""
    if not optima:
        raise ValueError("optima must hold at least one objective, got none")
    distances = {name: to_objective(point, found) for name, found in optima.items()}
    nearest = min(distances, key=distances.__getitem__)
    site = min(optima[nearest], key=lambda at: distance(point, at))
    close = {name for name, found in optima.items() if to_objective(site, found) <= tolerance}
    apart = {name: found for name, found in distances.items() if name not in close}
    runner_up = min(apart, key=apart.__getitem__) if apart else None
    return Identified(
        nearest,
        distances[nearest],
        runner_up,
        None if runner_up is None else apart[runner_up],
        tuple(sorted(close - {nearest})),
    )


def judge(point: Point, claim: str, optima: Optima, *, tolerance: float, margin: float) -> Judgement:
    """Whether a measured point is the optimum of the objective `claim`, and of no other."""
    if claim not in optima:
        return Judgement(Verdict.UNDECIDED, f"{claim} is not predicted here")
    if (left_open := _left_open(point, tolerance)) is not None:
        return left_open
    distances = {name: to_objective(point.mean, found) for name, found in optima.items()}
    found = identify(point.mean, optima, tolerance)
    if distances[claim] > tolerance:
        return _of_a_far_point(claim, distances[claim], found, tolerance, margin)
    site = min(optima[claim], key=lambda at: distance(point.mean, at))
    for name in sorted(distances, key=distances.__getitem__):
        apart = to_objective(site, optima[name])
        if name == claim or (apart <= SAME and family(name) == family(claim)):
            continue
        if apart <= tolerance:
            return Judgement(Verdict.UNDECIDED, f"not separable from {name}, {apart:.3f} apart")
        if distances[name] < margin * distances[claim]:
            return Judgement(Verdict.UNDECIDED, f"{name} is nearly as near, {distances[name]:.3f}")
    return Judgement(Verdict.CONFIRMED, f"within {distances[claim]:.3f} of {claim}")


def judge_none(point: Point, optima: Optima, *, tolerance: float, margin: float) -> Judgement:
    """Whether a measured point is the optimum of no objective."""
    if (left_open := _left_open(point, tolerance)) is not None:
        return left_open
    found = identify(point.mean, optima, tolerance)
    said = f"{found.nearest} is the nearest, {found.distance:.3f} away"
    if found.distance <= tolerance:
        return Judgement(Verdict.REFUTED, said)
    return Judgement(Verdict.CONFIRMED if found.distance >= margin * tolerance else Verdict.UNDECIDED, said)


def _left_open(point: Point, tolerance: float) -> Judgement | None:
    """Where seeds do not agree on the point, or there is but one."""
    widest = max(point.half_width, key=point.half_width.__getitem__)
    if point.half_width[widest] <= tolerance:
        return None
    width = point.half_width[widest]
    said = (
        "one seed says nothing of its error" if math.isinf(width) else f"seeds leave {widest} open by {width:.3f}"
    )
    return Judgement(Verdict.UNDECIDED, said)


def _of_a_far_point(claim: str, away: float, found: Identified, tolerance: float, margin: float) -> Judgement:
    settled = found.distance <= tolerance
    if not settled and away < margin * tolerance:
        return Judgement(Verdict.UNDECIDED, f"{claim} is {away:.3f} away, and nothing is within {tolerance:g}")
    where = f"it settles on {found.nearest}, {found.distance:.3f} away" if settled else "it settles on no optimum"
    return Judgement(Verdict.REFUTED, f"{where}; {claim} is {away:.3f} away")


def over_processes(judgements: Mapping[str, Judgement]) -> Judgement:
    """What all processes say together: refuted by one is refuted; confirmed needs one that confirms."""
    for verdict in (Verdict.REFUTED, Verdict.CONFIRMED):
        said = [f"{name}: {one.reason}" for name, one in judgements.items() if one.verdict is verdict]
        if said:
            return Judgement(verdict, "; ".join(said))
    return Judgement(Verdict.UNDECIDED, "; ".join(f"{name}: {one.reason}" for name, one in judgements.items()))


def family(objective: str) -> str:
    """The divergence that an objective is a kind of.

    L2 is one of the forward KL, and mean flow counts as one: of lines it has the moments of data, as that has of
    Gaussians.
    """
    name = next((name for name in FAMILIES if name in objective), objective)
    return {"l2": "forward_kl", "mean_flow": "forward_kl"}.get(name, name)
