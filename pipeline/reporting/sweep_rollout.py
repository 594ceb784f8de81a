"""How the cells of a sweep fare along the rollout: distances of windows and of single frames from real clips."""

from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from pipeline.grid import Cell
from pipeline.reporting.read import Study, lookup
from pipeline.reporting.style import FAINT, INK, WIDE, new_figure, save
from pipeline.reporting.sweep_csv import FRAME, WINDOW
from pipeline.reporting.sweep_figures import look_of, plain, plain_numbers
from pipeline.reporting.sweep_read import START, Found

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {WINDOW: "windowed FVD\nabove its floor", FRAME: "Fréchet distance of\nframes above its floor"}
LONGER = "#f1f1f5"  # behind what is longer than training clips
ASIDE, MOST_ASIDE = 0.3, 1.5  # frames between the whiskers of two losses, and of all of them
HEADROOM = 0.18  # of the height of a panel, for what is said in it
EVERY = 3  # frames between two markers

Row = dict[str, Any]


def drift_of(found: Found) -> list[Row]:
    """A row a mark: mean and range over seeds of a distance above its floor, cells of the last phase and starts."""
    rows = []
    for loss in (START, *found.losses):
        for method in found.methods:
            phase = START if loss == START else found.last
            by_place: dict[tuple[str, int], list[float]] = {}
            for row in found.drift.get((phase, Cell(method, loss)), ()):
                by_place.setdefault((row.measure, row.at), []).append(row.distance - row.floor)
            for (measure, at), values in by_place.items():
                rows.append(
                    {
                        "method": method,
                        "loss": loss,
                        "phase": phase,
                        "measure": measure,
                        "at_frame": at,
                        "above_floor_mean": mean(values),
                        "above_floor_min": min(values),
                        "above_floor_max": max(values),
                        "num_seeds": len(values),
                    }
                )
    return rows


def draw_drift(found: Found, study: Study, path: Path) -> Path:
    """Methods across; above FVD of windows by their first frame, below Fréchet distance frame by frame."""
    rows = drift_of(found)
    trained = lookup(study.checkpoints[0].measured, "work.num_frames")
    figure = new_figure(WIDE, 4.9)
    axes = figure.subplots(2, len(found.methods), sharex=True, sharey="row", squeeze=False)
    for line, measure in zip(axes, TITLES, strict=True):
        for axis, method in zip(line, found.methods, strict=True):
            drawn = [row for row in rows if (row["method"], row["measure"]) == (method, measure)]
            _draw_panel(axis, found, drawn)
        line[0].set_ylabel(TITLES[measure], fontsize=8.5)
    last = max((row["at_frame"] for row in rows), default=trained)
    end = last + 0.6
    for line, measure in zip(axes, TITLES, strict=True):
        lowest = min((row["above_floor_min"] for row in rows if row["measure"] == measure), default=0.0)
        line[0].set_yscale("log" if lowest > 0 else "linear")
        low, high = line[0].get_ylim()
        line[0].set_ylim(top=high * (high / low) ** HEADROOM if lowest > 0 else high + HEADROOM * (high - low))
    for axis in axes.flat:
        plain_numbers(axis)
        if last > trained:
            axis.axvspan(trained + 0.5, end, color=LONGER, zorder=0, linewidth=0)
        axis.set_xlim(0.2, end)
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", integer=True)
    for axis, method in zip(axes[0], found.methods, strict=True):
        axis.set_title(method.replace("_", " "), fontsize=9)
        if last > trained:
            _note(axis, "longer than\ntraining clips", (trained + 0.5, 1.0), "left")
        axis.set_xlabel("first frame of the window", fontsize=8)
    for axis, method in zip(axes[1], found.methods, strict=True):
        _note(axis, _absent(found, method), (end, 1.0), "right")
        axis.set_xlabel("frame", fontsize=8)
    handles = {
        label: line
        for axis in axes[0]
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }  # fmt: skip
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=8)
    return save(figure, path, study, rows)


def _draw_panel(axis: "Axes", found: Found, rows: list[Row]) -> None:
    """A line a loss over its range of seeds: whiskers beside each other for windows, bands for frames."""
    losses = list(dict.fromkeys(row["loss"] for row in rows))
    if not losses:
        axis.text(0.5, 0.5, "nothing measured", ha="center", fontsize=7, color=INK, transform=axis.transAxes)
        plain(axis)
    for rank, loss in enumerate(losses):
        points = sorted((row for row in rows if row["loss"] == loss), key=lambda row: row["at_frame"])
        at, middle, low, high = (
            [row[name] for row in points]
            for name in ("at_frame", "above_floor_mean", "above_floor_min", "above_floor_max")
        )
        look = look_of(found, loss)
        if points[0]["measure"] == WINDOW:
            aside = min(ASIDE, MOST_ASIDE / len(losses))
            at = [place + aside * (rank - (len(losses) - 1) / 2) for place in at]
            axis.vlines(at, low, high, color=look["color"], linewidth=1.1)
            axis.plot(at, middle, label=label_of(loss), markersize=4.5, **look)
        else:
            axis.fill_between(at, low, high, color=look["color"], alpha=0.18, linewidth=0)
            axis.plot(at, middle, markersize=4, markevery=(rank % EVERY, EVERY), **look)


def label_of(loss: str) -> str:
    """For a legend."""
    return "what they start from" if loss == START else loss.replace("_", " ")


def _absent(found: Found, method: str) -> str:
    """Those that are not drawn, and why, a line each."""
    cells = [Cell(method, loss) for loss in found.losses if (found.last, Cell(method, loss)) not in found.drift]
    return "\n".join(f"{label_of(cell.loss)}: {found.absence(found.last, cell)[0]}" for cell in cells)


def _note(axis: "Axes", text: str, place: tuple[float, float], side: str) -> None:
    axis.annotate(
        text, place, xytext=(3 if side == "left" else -3, -3), xycoords=("data", "axes fraction"),
        textcoords="offset points", ha=side, va="top", fontsize=6.8, color=FAINT if side == "left" else INK,
        linespacing=1.1,
    )  # fmt: skip
