"""The picture of roll-outs far past the training length, and its numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.methods import METHODS
from pipeline.reporting.laboratory import shown, words
from pipeline.reporting.laboratory.maps import FONT, WIDTH, stacked
from pipeline.reporting.laboratory.results import Laboratory
from pipeline.reporting.laboratory.tables import RolledFrame
from pipeline.reporting.style import FAINT, FLOOR, INK, MARKERS, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"teacher_forcing": "#d55e00", "diffusion_forcing": "#0072b2", "self_forcing": "#009e73"}
CONTEXTS = ((0, (6, 1.4)), (0, (3.5, 1.4)), (0, (1, 1)))  # lines of context noise, the more the finer
VARIANT = (0, (2, 1.6))
NUMBERS = ("mean", "variance", "predicted_variance", "reverse_kl_by_frame")  # of a frame
SO_FAR = "reverse_kl_so_far"
PANELS = {"variance": "Variance of a frame", "mean": "Mean of a frame", SO_FAR: "Reverse KL so far, nats"}
EVERY = 2  # frames between circles of the closed form


def by_seed(found: Laboratory) -> dict[str, dict[str, np.ndarray]]:
    """Of each that was rolled out: every number of a frame, and the sum of its reverse KL so far, (S, F)."""
    rows: dict[str, dict[int, list[RolledFrame]]] = {}
    for row in sorted(found.rolled, key=lambda row: row.frame):
        rows.setdefault(row.rollout, {}).setdefault(row.seed, []).append(row)
    series: dict[str, dict[str, np.ndarray]] = {}
    for name, seeds in rows.items():
        values = {
            number: np.array([[vars(row)[number] or 0.0 for row in own] for own in seeds.values()])
            for number in NUMBERS
        }
        series[name] = {**values, SO_FAR: values["reverse_kl_by_frame"].cumsum(1)}
    return series


def rolled(found: Laboratory) -> dict[str, dict[str, np.ndarray]]:
    """Of each that was rolled out, by frame (F,): the mean over seeds of every number."""
    return {
        name: {number: values.mean(0) for number, values in numbers.items()}
        for name, numbers in by_seed(found).items()
    }


def rollout_words(name: str) -> str:
    """What was rolled out."""
    method, _, variant = name.partition("-")
    short = words.INITIALS.get(method, method)
    if variant.startswith("context_"):
        return f"{short}, context noise {variant.removeprefix('context_')}"
    return f"{short}, {variant}" if variant else short


def _look(name: str, names: Sequence[str]) -> dict[str, Any]:
    """Colour and marker of its method, and the line of its variant."""
    method, _, variant = name.partition("-")
    line: Any = VARIANT if variant else "-"
    if variant.startswith("context_"):
        same = [other for other in names if other.startswith(f"{method}-context_")]
        line = CONTEXTS[same.index(name) % len(CONTEXTS)]
    marker = MARKERS[list(METHODS).index(method)]
    return {"color": COLOURS[method], "linestyle": line, "marker": marker, "markevery": [-1], "markersize": 4.5}


def draw_exposure(found: Laboratory, path: Path) -> Path:
    """By frame: variance, over it the closed form; mean; and the reverse KL summed so far."""
    figure = new_figure(WIDTH, 6.0)
    figure.set_layout_engine("none")
    top = PLACE["top"] - (0.04 if found.warning else 0)
    axes = figure.subplots(len(PANELS), 1, sharex=True, gridspec_kw={**PLACE, "top": top})
    rows = _data(found)
    names = list(dict.fromkeys(row["rollout"] for row in rows))
    for axis, (panel, title) in zip(axes, PANELS.items(), strict=True):
        for name in names:
            _draw_rollout(axis, [row for row in rows if row["rollout"] == name], panel, _look(name, names))
        axis.axvline(found.params["exposure"]["trained_frames"], color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=7.5)
        axis.set_xlim(0, rows[-1]["frame"])
        if panel == "mean":
            room = max(0.05, *(1.2 * abs(row[panel]) for row in rows))
            axis.set_ylim(-room, room)
        else:
            ends = {row["rollout"]: row[panel] for row in rows}  # of the last frame
            _name_ends(axis, ends, names, ".2f" if panel == "variance" else ".2g")
    axes[0].axhline(1, color=FAINT, linewidth=0.9)
    trained = found.params["exposure"]["trained_frames"]
    axes[0].annotate("training\nends", (trained, 1), xycoords=("data", "axes fraction"), xytext=(3, -3),
                     textcoords="offset points", va="top", fontsize=6.8, color=INK)  # fmt: skip
    axes[-1].set_xlabel("frame", fontsize=8)
    return save(figure, path, found, rows)


def _data(found: Laboratory) -> list[dict[str, Any]]:
    """A row a roll-out and frame, counted from 1: means over seeds, half their 95 % intervals, the closed form."""
    rows = []
    for name, numbers in by_seed(found).items():
        for frame in range(numbers["mean"].shape[1]):
            row: dict[str, Any] = {"rollout": name, "frame": frame + 1}
            for panel in PANELS:
                at = numbers[panel][:, frame]
                row |= {panel: float(at.mean()), f"{panel}_half_width": shown.half_width(at.tolist())}
            predicted = float(numbers["predicted_variance"][:, frame].mean())
            rows.append({**row, "predicted_variance": None if frame % EVERY else predicted})
    return rows


def _draw_rollout(axis: "Axes", rows: Sequence[Mapping[str, Any]], panel: str, look: Mapping[str, Any]) -> None:
    frames = [row["frame"] for row in rows]
    axis.plot(frames, [row[panel] for row in rows], linewidth=1.6, clip_on=False, **look)
    if all(row[f"{panel}_half_width"] is not None for row in rows):
        low, high = ([row[panel] + sign * row[f"{panel}_half_width"] for row in rows] for sign in (-1, 1))
        axis.fill_between(frames, low, high, color=look["color"], alpha=0.15, linewidth=0)
    if panel == "variance":
        circles = {row["frame"]: at for row in rows if (at := row["predicted_variance"]) is not None}
        axis.plot(*zip(*circles.items(), strict=True), "o", markersize=2.6, mfc="white", mec=look["color"])


LEADER: Any = {"arrowstyle": "-", "color": FLOOR, "linewidth": 0.6}
PLACE = {"left": 0.1, "right": 0.61, "top": 0.93, "bottom": 0.075, "hspace": 0.32}


def _name_ends(axis: "Axes", ends: Mapping[str, float], names: Sequence[str], digits: str) -> None:
    """What a line is, at its end; those that end together one under another."""
    low, high = axis.get_ylim()
    order = sorted(ends, key=lambda name: -ends[name])
    places = stacked([(ends[name] - low) / (high - low) for name in order], [0.1] * len(order), 1.0)
    for name, place in zip(order, places, strict=True):
        colour = _look(name, names)["color"]
        axis.annotate(
            f"{rollout_words(name)}: {ends[name]:{digits}}", (1, place), xycoords="axes fraction", xytext=(8, 0),
            textcoords="offset points", va="center", fontsize=FONT, color=colour, annotation_clip=False,
        )  # fmt: skip
        end = (ends[name] - low) / (high - low)
        axis.annotate("", (1, end), (1.025, place), xycoords="axes fraction", textcoords="axes fraction",
                      arrowprops=LEADER, annotation_clip=False)  # fmt: skip
