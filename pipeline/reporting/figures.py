"""Figures of the comparison: a function each, all drawn from a study alone."""

import csv
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.records import DamagedRecordError
from pipeline.reporting.columns import COLUMNS
from pipeline.reporting.curves import draw_training
from pipeline.reporting.overview import draw_overview
from pipeline.reporting.read import Checkpoint, Study, lookup
from pipeline.reporting.style import FAINT, FLOOR, INK, WIDE, colours, marker, new_figure, save, theme, without_grid
from pipeline.reporting.tables import flops_of
from pipeline.reporting.weighting import draw_weighting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TERA = 1e12
LEAST_SHARE = -0.02  # where an axis of shares begins at the earliest: a marker at 0 is whole
EVERY = 4  # points of a curve between two markers
RISING, FLAT = "#0072b2", "#d55e00"
Draw = Callable[[Study, Path], Path]


def draw_all(study: Study, directory: Path) -> dict[str, Path]:
    """Every figure, by its name in FIGURES."""
    directory.mkdir(parents=True, exist_ok=True)
    with theme():
        return {name: draw(study, directory / FILES[name]) for name, draw in FIGURES.items()}


def draw_excess(study: Study, path: Path) -> Path:
    """FVD as floor and excess, with the interval of the excess."""
    shades = colours(study)
    figure = new_figure(WIDE, 0.8 + 0.36 * len(study.checkpoints))
    axis = figure.add_subplot()
    for row, checkpoint in enumerate(study.checkpoints):
        floor, excess, (low, high) = (
            lookup(checkpoint.measured, f"metrics.fvd.{name}") for name in ("floor", "excess", "interval")
        )
        axis.barh(row, floor, color=FLOOR, height=0.66)
        axis.barh(row, excess, left=floor, color=shades[checkpoint.name], height=0.66)
        for colour, width in (("white", 4.5), (INK, 1.8)):
            axis.plot([floor + low, floor + high], [row, row], color=colour, linewidth=width, solid_capstyle="butt")
        axis.annotate(
            "+" + COLUMNS["excess"].shown(excess),
            (floor + max(high, excess), row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    axis.set_yticks(range(len(study.checkpoints)), [checkpoint.label for checkpoint in study.checkpoints])
    axis.invert_yaxis()
    axis.set_xlabel("FVD.  Grey: floor, real against real.  Coloured: excess.  Line: 95 % interval of the excess.")
    axis.margins(x=0.12)
    axis.set_xlim(left=0)
    without_grid(axis, "y")
    rows = [
        row | dict(zip(("low", "high"), lookup(one.measured, "metrics.fvd.interval"), strict=True))
        for one, row in zip(study.checkpoints, _rows(study, "fvd.floor", "fvd.excess"), strict=True)
    ]
    return save(figure, path, study, rows)


def draw_drift(study: Study, path: Path) -> Path:
    """Two curves of time: Fréchet distance of single frames, and FVD of windows that start later and later."""
    figure = new_figure(WIDE, 3.9)
    left, right = figure.subplots(1, 2)
    trained = lookup(study.checkpoints[0].measured, "work.num_frames")
    _lines_over_floor(left, study, "metrics.frames.index", "metrics.frames.distance", "metrics.frames.floor")
    end = left.get_xlim()[1]
    left.set(xlabel="frame", ylabel="Fréchet distance of frames", title="Frame by frame")
    if max(lookup(study.checkpoints[0].measured, "metrics.frames.index")) > trained:
        left.axvspan(trained + 0.5, end, color="#f4f4f7", zorder=0)
        left.set_xlim(right=end)
        left.annotate(
            "longer than training clips ▸",
            (trained + 0.5, 1),
            xytext=(4, -4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            fontsize=7.5,
            color=FAINT,
        )
    _lines_over_floor(right, study, "metrics.windows.start", "metrics.windows.fvd", "metrics.windows.floor")
    right.set(xlabel="first frame of the window", ylabel="FVD", title=f"Windows of {trained} frames")
    right.set_xticks(lookup(study.checkpoints[0].measured, "metrics.windows.start"))
    for axis in (left, right):
        axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    frames = _places(study, "frame", "frames.index", "frames.distance", "frames.floor")
    windows = _places(study, "window", "windows.start", "windows.fvd", "windows.floor")
    return save(figure, path, study, [*frames, *windows])


def draw_support(study: Study, path: Path) -> Path:
    """Are its clips like real ones, and are all real ones among them?"""
    figure = new_figure(WIDE, 4.1)
    left, right = figure.subplots(1, 2)
    for axis, across, up in ((left, "precision", "recall"), (right, "density", "coverage")):
        _points(axis, study, _metric(f"coverage.{across}"), _metric(f"coverage.{up}"))
        axis.set(xlabel=f"{across}  (generated clips like real ones)", ylabel=f"{up}  (real clips reached)")
        axis.set_title(f"{up.capitalize()} against {across}")
        axis.margins(0.12)
        axis.set_xlim(left=max(axis.get_xlim()[0], LEAST_SHARE))
        axis.set_ylim(bottom=max(axis.get_ylim()[0], LEAST_SHARE))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    names = ("precision", "recall", "density", "coverage")
    return save(figure, path, study, _rows(study, *(f"coverage.{name}" for name in names)))


def draw_cost(study: Study, path: Path) -> Path:
    """Quality against the operations of the whole chain; arrows lead from a checkpoint to its offspring."""
    figure = new_figure(WIDE, 4.1)
    left, right = figure.subplots(1, 2)
    for axis, metric in ((left, "fvd.excess"), (right, "identity.first_to_last")):
        _lineage(axis, study, _cost, _metric(metric))
        _points(axis, study, _cost, _metric(metric))
        axis.set_xlabel("TFLOP of training, with all denoisers before it")
        axis.margins(0.12)
    left.set(ylabel="excess FVD", title="Excess FVD (lower is better)")
    right.set(ylabel="share of clips", title="Digit kept from first to last frame (higher is better)")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    rows = _rows(study, "fvd.excess", "identity.first_to_last")
    for checkpoint, row in zip(study.checkpoints, rows, strict=True):
        origin = study.origin_of(checkpoint)
        row |= {"tflop_with_ancestors": _cost(checkpoint), "began_as": origin.name if origin else ""}
    return save(figure, path, study, rows)


def draw_corruptions(study: Study, path: Path) -> Path:
    """How the distance that FVD is answers to known defects: a panel a family."""
    from matplotlib.ticker import LogLocator, NullLocator

    families = read_corruptions(study)
    num_columns = 4
    num_rows = -(-len(families) // num_columns)
    figure = new_figure(WIDE, 1.55 * num_rows + 0.5)
    axes = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False)
    for axis, (family, curve) in zip(axes.flat, families.items(), strict=False):
        levels, distances = zip(*curve, strict=True)
        rises = all(weaker < stronger for weaker, stronger in pairwise(distances))
        axis.plot(range(len(levels)), distances, marker="o", markersize=4, color=RISING if rises else FLAT)
        axis.axhline(distances[0], color=FAINT, linestyle=(0, (2, 2)), linewidth=1)
        axis.set_xticks(range(len(levels)), [f"{level:g}" for level in levels], fontsize=7)
        axis.set(yscale="log", title=family.replace("_", " ") + ("" if rises else " (does not rise)"))
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())
    for axis in list(axes.flat)[len(families) :]:
        axis.set_visible(False)
    figure.supylabel("Fréchet distance", fontsize=9)
    figure.supxlabel("strength of the defect; dashed: real clips against real clips", fontsize=9)
    rows = [
        {"family": family, "strength": level, "frechet_distance": distance}
        for family, curve in families.items()
        for level, distance in curve
    ]
    return save(figure, path, study, rows)


def read_corruptions(study: Study) -> dict[str, list[tuple[float, float]]]:
    """Strength and distance of every level, by family. Raises DamagedRecordError when the table cannot be read."""
    path = study.stage("features").directory / "corruptions.csv"
    families: dict[str, list[tuple[float, float]]] = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                level, distance = float(row["level"]), float(row["frechet_distance"])
                families.setdefault(row["family"], []).append((level, distance))
    except OSError as error:
        raise DamagedRecordError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRecordError(f"{path} is damaged: {error}") from error
    return families


def _rows(study: Study, *names: str) -> list[dict[str, Any]]:
    """A row a checkpoint: metrics by the last part of their names, and of how many clips they are."""
    return [
        {
            "checkpoint": checkpoint.name,
            "label": checkpoint.label,
            **{name.rpartition(".")[2]: lookup(checkpoint.measured, f"metrics.{name}") for name in names},
            "num_clips": lookup(checkpoint.measured, "metrics.fvd.num_clips"),
        }
        for checkpoint in study.checkpoints
    ]


def _places(study: Study, measure: str, at: str, distance: str, floor: str) -> Iterator[dict[str, Any]]:
    """A row a checkpoint and place along the rollout."""
    for checkpoint, row in zip(study.checkpoints, _rows(study, at, distance, floor), strict=True):
        lists = (lookup(checkpoint.measured, f"metrics.{name}") for name in (at, distance, floor))
        for place, value, least in zip(*lists, strict=True):
            yield {
                **{name: row[name] for name in ("checkpoint", "label")},
                **{"measure": measure, "at_frame": place, "distance": value, "floor": least},
                "num_clips": row["num_clips"],
            }


def _metric(name: str) -> Callable[[Checkpoint], float]:
    return lambda checkpoint: lookup(checkpoint.measured, f"metrics.{name}")


def _cost(checkpoint: Checkpoint) -> float:
    return flops_of(checkpoint.chain) / TERA


def _lines_over_floor(axis: "Axes", study: Study, across: str, up: str, floor: str) -> None:
    """A line a checkpoint, and the floor of real clips beneath."""
    shades = colours(study)
    first = study.checkpoints[0].measured
    axis.plot(
        lookup(first, across),
        lookup(first, floor),
        color=FAINT,
        linestyle=(0, (3, 2)),
        label="floor: real against real",
    )
    every = EVERY if len(lookup(first, across)) > 2 * EVERY else 1
    for rank, checkpoint in enumerate(study.checkpoints):
        axis.plot(
            lookup(checkpoint.measured, across),
            lookup(checkpoint.measured, up),
            color=shades[checkpoint.name],
            marker=marker(study, checkpoint),
            markersize=4.5,
            markevery=(rank % every, every),
            label=checkpoint.label,
        )


def _points(
    axis: "Axes", study: Study, across: Callable[[Checkpoint], float], up: Callable[[Checkpoint], float]
) -> None:
    """A point a checkpoint."""
    shades = colours(study)
    for checkpoint in study.checkpoints:
        axis.plot(
            across(checkpoint),
            up(checkpoint),
            color=shades[checkpoint.name],
            marker=marker(study, checkpoint),
            markersize=10,
            markeredgecolor="white",
            markeredgewidth=0.6,
            linestyle="none",
            label=checkpoint.label,
            zorder=3,
        )


def _lineage(
    axis: "Axes", study: Study, across: Callable[[Checkpoint], float], up: Callable[[Checkpoint], float]
) -> None:
    """A faint arrow from each checkpoint to every one whose weights began as its own."""
    for checkpoint in study.checkpoints:
        origin = study.origin_of(checkpoint)
        if origin:
            axis.annotate(
                "",
                (across(checkpoint), up(checkpoint)),
                (across(origin), up(origin)),
                arrowprops={"arrowstyle": "->", "color": FLOOR, "shrinkA": 5, "shrinkB": 6},
            )


FIGURES: dict[str, Draw] = {
    "overview": draw_overview,
    "excess": draw_excess,
    "support": draw_support,
    "drift": draw_drift,
    "cost": draw_cost,
    "weighting": draw_weighting,
    "training": draw_training,
    "corruptions": draw_corruptions,
}
FILES = {name: f"{name}.svg" for name in FIGURES}
