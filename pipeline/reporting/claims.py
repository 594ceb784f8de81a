"""What an ablation of the objective says of the sources' claims: sentences made of its numbers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, median

AXES = ("prediction", "weighting", "schedule")
Z_LIMIT = 3.0  # standard errors within which two means are called equal
NORMAL_95 = 1.96
HALF_LAW = "exponential"  # w = exp(-log_snr / 2)
CLEAN, TRAINING = "teacher_forcing", "training"  # the laws of levels
TITLES = {"bits_per_dim": "bits per dimension", "excess": "excess FVD"}


@dataclass(frozen=True)
class Teacher:
    """A line of diffusion.csv."""

    prediction: str
    weighting: str
    schedule: str
    bits_per_dim: float | None
    bits_standard_error: float | None
    excess: float
    excess_low: float
    excess_high: float
    agreement_second: float
    loss: float
    loss_relative_sd: float
    updates: int
    seconds: float


@dataclass(frozen=True)
class Spread:
    """A line of spread.csv: the loss of a network, its levels of a law, drawn under a schedule."""

    prediction: str
    weighting: str
    schedule: str
    law: str
    drawn_under: str
    mean: float
    standard_error: float
    relative_sd: float


@dataclass(frozen=True)
class Gap:
    """Between two estimates of one mean: in standard errors, and relative."""

    errors: float
    relative: float


def verdicts(teachers: list[Teacher], spread: list[Spread]) -> list[str]:
    """One sentence or two on each claim that the tables can judge."""
    weightings = dict.fromkeys(line.weighting for line in spread)
    lines = [_invariance(spread, weighting) for weighting in weightings]
    lines += [_context(spread), _sharpest(spread), *(_difference(teachers, name) for name in TITLES)]
    return [line for line in lines if line]


def _invariance(spread: list[Spread], weighting: str) -> str:
    gaps = list(gaps_of([line for line in spread if line.weighting == weighting], CLEAN))
    if not gaps:
        return ""
    worst = max(gaps, key=lambda gap: gap.errors)
    named = "w = exp(-log_snr / 2)" if weighting == HALF_LAW else f"w of {weighting}"
    held = "equal" if worst.errors <= Z_LIMIT else "NOT equal"
    return (
        f"{named}, clean context: the loss of one network, its levels drawn by two schedules, is {held} within "
        f"{Z_LIMIT:g} standard errors (largest difference {worst.errors:.1f} of them, {worst.relative:.1%}; "
        f"{len(gaps)} pairs)."
    )


def _context(spread: list[Spread]) -> str:
    gaps = list(gaps_of(spread, TRAINING))
    if not gaps:
        return ""
    worst = max(gaps, key=lambda gap: gap.errors)
    return (
        f"By the law of levels that trained them, whose context is noisy too, the largest such difference is "
        f"{worst.errors:.1f} standard errors ({worst.relative:.1%}; {len(gaps)} pairs): there the schedule also "
        f"draws how noisy the context of a frame is, which belongs to the objective."
    )


def gaps_of(spread: list[Spread], law: str) -> Iterator[Gap]:
    """Between all pairs of schedules that drew the levels of one network."""
    networks: dict[tuple[str, str, str], list[Spread]] = {}
    for line in spread:
        if line.law == law:
            networks.setdefault((line.prediction, line.weighting, line.schedule), []).append(line)
    for lines in networks.values():
        for a, b in combinations(lines, 2):
            gap = abs(a.mean - b.mean)
            yield Gap(gap / math.hypot(a.standard_error, b.standard_error), gap / ((a.mean + b.mean) / 2))


def _sharpest(spread: list[Spread]) -> str:
    lines = [line for line in spread if line.law == TRAINING]
    names = dict.fromkeys(line.drawn_under for line in lines)
    overall = {name: mean(line.relative_sd for line in lines if line.drawn_under == name) for name in names}
    listed = ", ".join(f"{name} {overall[name]:.2f}" for name in sorted(overall, key=lambda name: overall[name]))
    best = {}
    for weighting in dict.fromkeys(line.weighting for line in lines):
        same = {
            name: mean(x.relative_sd for x in lines if (x.weighting, x.drawn_under) == (weighting, name))
            for name in names
        }
        best[weighting] = min(same, key=lambda name: same[name])
    return (
        f"Relative standard deviation of a clip's loss by the schedule that draws its levels, mean over networks: "
        f"{listed}. Smallest: {', '.join(f'{name} for {weighting}' for weighting, name in best.items())}."
    )


def _difference(teachers: list[Teacher], name: str) -> str:
    shown = [f"{axis} {gap:.3g}" for axis in AXES if (gap := mean_gap(teachers, axis, name)) is not None]
    errors = [error for teacher in teachers if (error := _half_interval(teacher, name)) is not None]
    if not shown or not errors:
        return ""
    return (
        f"Mean absolute difference in {TITLES[name]} of two teachers that differ in one thing alone: "
        f"{', '.join(shown)}. One seed each: two teachers less than {math.sqrt(2) * median(errors):.2g} apart are "
        f"not separated, by the scatter over clips alone; another seed may move them further."
    )


def mean_gap(teachers: list[Teacher], axis: str, name: str) -> float | None:
    """Mean |a - b| over all pairs that differ in `axis` alone; None where there is none."""
    gaps = []
    for one, other in combinations(map(vars, teachers), 2):
        differ = [part for part in AXES if one[part] != other[part]]
        if differ == [axis] and one[name] is not None and other[name] is not None:
            gaps.append(abs(one[name] - other[name]))
    return mean(gaps) if gaps else None


def _half_interval(teacher: Teacher, name: str) -> float | None:
    """Of 95 %, over clips."""
    if name == "excess":
        return (teacher.excess_high - teacher.excess_low) / 2
    return None if teacher.bits_standard_error is None else NORMAL_95 * teacher.bits_standard_error
