"""The numbers that the laboratory's pictures show, a row a mark, by the names that its files have for them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.laboratory.verdicts import Parameters, Point
from pipeline.reporting.laboratory.laws import Mixture
from pipeline.reporting.laboratory.results import Judged

Row = Mapping[str, Any]
NEW = 0.3  # share of the newest point in a smoothed way
WAY_POINTS = 9  # at the most


def of_data(process: str, law: Mixture) -> list[Row]:
    """The density of data: its Gaussians, a row each, frames counted from 1."""
    rows = []
    for share, means, covariance in zip(law.shares, law.means, law.covariances, strict=True):
        frames = range(len(means))
        at = {f"mean_{i + 1}": means[i] for i in frames}
        at |= {f"covariance_{i + 1}{j + 1}": covariance[i, j] for i in frames for j in frames if i <= j}
        rows.append({"mark": "data", "process": process, "share": share, **at})
    return rows


def of_optimum(process: str, objective: str, at: Parameters, *, mark: str = "optimum") -> Row:
    """A predicted one, with the parameters of the student that has it."""
    return {"mark": mark, "process": process, "objective": objective, **at}


def of_cell(row: Judged, names: Sequence[str] | None = None) -> Row:
    """Where a cell has settled, the mean over seeds, and half its 95 % interval; none of one seed."""
    names = tuple(row.at) if names is None else names
    widths = {f"{name}_half_width": row.half_width[name] for name in names if math.isfinite(row.half_width[name])}
    return {**_named(row), **{name: row.at[name] for name in names}, **widths}


def _named(row: Judged) -> Row:
    return {"mark": "student", "process": row.process, "cell": row.cell, "critics": row.critics}


def of_way(row: Judged, seed: int, way: Sequence[tuple[int, Parameters]]) -> list[Row]:
    """The points of a line as it is drawn: after so many updates, smoothed."""
    named = {**_named(row), "mark": "training", "seed": seed}
    return [{**named, "step": step, **at} for step, at in way]


def smoothed(way: Sequence[tuple[int, Parameters]]) -> list[tuple[int, Parameters]]:
    """A running mean of where the parameters were, by step: single updates are noisy."""
    along = [way[0]]
    for step, at in way[1:]:
        before = along[-1][1]
        along.append((step, {name: before[name] + NEW * (value - before[name]) for name, value in at.items()}))
    return along


def thinned(way: Sequence[tuple[int, Parameters]]) -> list[tuple[int, Parameters]]:
    """Of many points evenly chosen ones, the first and the last among them."""
    every = math.ceil((len(way) - 1) / (WAY_POINTS - 1)) or 1
    return [*way[: len(way) - 1 : every], way[-1]]


def half_width(values: Sequence[float]) -> float | None:
    """Of seeds: half the 95 % interval of their mean; None of one."""
    width = Point.of([{"value": value} for value in values]).half_width["value"]
    return width if math.isfinite(width) else None
