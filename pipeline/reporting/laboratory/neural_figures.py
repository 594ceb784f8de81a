"""Pictures of neural students on processes of known density, and of the estimators that measure them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.losses import LOSSES
from pipeline.methods import METHODS
from pipeline.reporting.laboratory import words
from pipeline.reporting.laboratory.maps import FONT, WIDTH, stacked
from pipeline.reporting.laboratory.neural_tables import Bias, Divergence, ModeShare, StepKl, by_cell
from pipeline.reporting.laboratory.results import Laboratory
from pipeline.reporting.laboratory.rollouts import LEADER
from pipeline.reporting.style import FAINT, HUES, INK, MARKERS, new_figure, save, without_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOUND = "classifier_bound"  # the estimator that is too low in expectation
CONTEXTS = {"true": "After true contexts: forward KL so far, nats", "own": "After its own: reverse KL so far, nats"}
LINEAR = 0.01  # nats below which a scale of powers of ten is linear
ROW = 0.24  # inches
DIVERGENCES = ("forward_kl", "reverse_kl", "jensen_shannon")


def look(cell: str) -> dict[str, Any]:
    """The colour of its loss and the marker of its method."""
    method, _, loss = cell.partition("-")
    known = sorted(LOSSES, key=len, reverse=True)
    name = next((name for name in known if loss.startswith(name)), None)
    forcing = next((name for name in METHODS if method.startswith(name)), None)
    colour = HUES[list(LOSSES).index(name) % len(HUES)] if name else INK
    return {"color": colour, "marker": MARKERS[list(METHODS).index(forcing)] if forcing else MARKERS[-1]}


def draw_neural(found: Laboratory, rows: Sequence[Divergence], path: Path) -> Path:
    """A panel a divergence, a row a cell, a mark a seed."""
    cells = list(by_cell(rows))
    figure = new_figure(WIDTH, ROW * len(cells) + 0.75 + _head(found))
    names = [name for name in DIVERGENCES if any(row.divergence == name for row in rows)]
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for number, axis in enumerate(axes):
        for place, cell in enumerate(cells):
            own = [row for row in rows if row.cell == cell and row.divergence == names[number]]
            for rank, row in enumerate(own):
                at, style = place + 0.16 * (rank - (len(own) - 1) / 2), look(cell)
                axis.plot((row.low, row.high), (at, at), color=style["color"], linewidth=1, alpha=0.7)
                face = "white" if row.estimator == BOUND else style["color"]
                axis.plot(row.value, at, markersize=4, mfc=face, mec=style["color"], linestyle="none", **style)
        axis.set_xscale("symlog", linthresh=LINEAR)
        axis.set_title(words.objective(names[number]), fontsize=8.5)
        axis.tick_params(labelsize=6.8)
        without_grid(axis, "y")
    _name_rows(axes[0], cells)
    figure.supxlabel("nats a clip", fontsize=8)
    return save(figure, path, found, [vars(row) for row in rows if row.divergence in names])


def _name_rows(axis: "Axes", cells: Sequence[str]) -> None:
    axis.set_yticks(range(len(cells)), [words.cell(cell, short=True) for cell in cells], fontsize=FONT)
    axis.set_ylim(len(cells) - 0.4, -0.6)


def draw_neural_modes(found: Laboratory, rows: Sequence[ModeShare], path: Path) -> Path:
    """A row a cell: the share of the mode that is rarest in data."""
    least = min(rows, key=lambda row: row.data_share)
    cells = list(by_cell(rows))
    figure = new_figure(WIDTH, ROW * len(cells) + 0.7 + _head(found))
    axis = figure.add_subplot()
    of_mode = [row for row in rows if row.mode == least.mode]
    for row in of_mode:
        axis.plot(row.share, cells.index(row.cell), markersize=5, linestyle="none", **look(row.cell))
    axis.axvline(least.data_share, color=INK, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
    _name_rows(axis, cells)
    axis.set_xlim(0, 1.08 * axis.get_xlim()[1])
    axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axis.set_xlabel(f"share of clips in a mode of {words.share(least.data_share)} of data", fontsize=8)
    axis.tick_params(axis="x", labelsize=7.5)
    without_grid(axis, "y")
    return save(figure, path, found, [vars(row) for row in of_mode])


def draw_steps(found: Laboratory, rows: Sequence[StepKl], path: Path) -> Path:
    """A panel for contexts of either kind: the KL by frame, summed so far, a line a cell, with its seeds' ends."""
    kinds = [kind for kind in CONTEXTS if any(row.contexts == kind for row in rows)]
    figure = new_figure(WIDTH, 2.5 * len(kinds) + _head(found))
    figure.set_layout_engine("none")
    place = {"left": 0.11, "right": 0.64, "top": 0.87 if found.warning else 0.92, "bottom": 0.09, "hspace": 0.32}
    axes = figure.subplots(len(kinds), 1, squeeze=False, gridspec_kw=place)[:, 0]
    data = []
    for axis, kind in zip(axes, kinds, strict=True):
        ends = {}
        for cell, own in by_cell([row for row in rows if row.contexts == kind]).items():
            sums = _so_far(own)
            data += [{"cell": cell, "contexts": kind, "frame": frame, **at} for frame, at in sums.items()]
            value, least, most = (np.array([at[key] for at in sums.values()]) for key in ("value", "least", "most"))
            errors = [value - least, most - value]
            axis.errorbar(list(sums), value, yerr=errors, markersize=4, elinewidth=0.8, clip_on=False, **look(cell))
            ends[cell] = float(value[-1])
        axis.set_yscale("symlog", linthresh=LINEAR)
        axis.set_title(CONTEXTS[kind], fontsize=8.5)
        axis.locator_params(axis="x", integer=True)
        axis.set_xlim(right=max(row["frame"] for row in data))
        axis.tick_params(labelsize=7.5)
        _name_ends(axis, ends)
    axes[-1].set_xlabel("frame", fontsize=8)
    return save(figure, path, found, data)


def _so_far(rows: Sequence[StepKl]) -> dict[int, dict[str, float]]:
    """Of a cell, by frame counted from 1: the sum so far, its mean over seeds, and the least and greatest seed."""
    by_seed: dict[int, list[float]] = {}
    for row in sorted(rows, key=lambda row: row.frame):
        by_seed.setdefault(row.seed, []).append(row.value)
    sums = np.cumsum(list(by_seed.values()), 1)
    ends = {"value": sums.mean(0), "least": sums.min(0), "most": sums.max(0)}
    return {k + 1: {name: float(values[k]) for name, values in ends.items()} for k in range(sums.shape[1])}


def _name_ends(axis: "Axes", ends: Mapping[str, float]) -> None:
    """What a line is, at its end; those that end together one under another."""
    axis.autoscale_view()  # else limits are set when it is drawn
    to_axes = axis.transData + axis.transAxes.inverted()
    heights = {cell: float(to_axes.transform((1, value))[1]) for cell, value in ends.items()}
    order = sorted(ends, key=lambda cell: -heights[cell])
    places = stacked([heights[cell] for cell in order], [0.085] * len(order), 1.0)
    how: dict[str, Any] = {
        "textcoords": "offset points",
        "va": "center",
        "fontsize": FONT,
        "annotation_clip": False,
    }
    for cell, place in zip(order, places, strict=True):
        text = f"{words.cell(cell, short=True)}: {ends[cell]:.2g}"
        axis.annotate(text, (1, place), xycoords="axes fraction", xytext=(8, 0), color=look(cell)["color"], **how)
        axis.annotate("", (1, heights[cell]), (1.025, place), xycoords="axes fraction", textcoords="axes fraction",
                      arrowprops=LEADER, annotation_clip=False)  # fmt: skip


def draw_estimators(found: Laboratory, rows: Sequence[Bias], path: Path) -> Path:
    """A panel a divergence: estimate less exact value against the number of draws, a line a pair and estimator."""
    names = [name for name in DIVERGENCES if any(row.divergence == name for row in rows)]
    pairs = list(dict.fromkeys(row.pair for row in rows))
    figure = new_figure(WIDTH, 1.95 * len(names) + 0.5 + _head(found))
    axes = figure.subplots(len(names), 1, squeeze=False, sharex=True)[:, 0]
    data = []
    for axis, name in zip(axes, names, strict=True):
        for number, pair in enumerate(pairs):
            for estimator in dict.fromkeys(row.estimator for row in rows):
                own = [row for row in rows if (row.pair, row.estimator, row.divergence) == (pair, estimator, name)]
                own.sort(key=lambda row: row.num_samples)
                across = [row.num_samples * (1 + 0.03 * number) for row in own]  # no interval hides another
                off = [row.estimate - row.exact for row in own]
                ends = [[row.estimate - row.low for row in own], [row.high - row.estimate for row in own]]
                data += [{**vars(row), "estimate_less_exact": by} for row, by in zip(own, off, strict=True)]
                line = (0, (3, 1.5)) if estimator == BOUND else "-"
                label = f"{pair.replace('_', ', ')}, {estimator.replace('_', ' ')}"
                style: dict[str, Any] = {"marker": MARKERS[number % len(MARKERS)], "color": HUES[1 + number]}
                style |= {"linestyle": line, "linewidth": 1.3, "elinewidth": 0.8, "markersize": 3.5}
                axis.errorbar(across, off, yerr=ends, label=label, **style)
        axis.axhline(0, color=FAINT, linewidth=0.9)
        axis.set_xscale("log")
        axis.set_title(f"{words.objective(name)}: estimate less exact value, nats", fontsize=8.5)
        axis.tick_params(labelsize=7.5)
    numbers = sorted({row.num_samples for row in rows})
    axes[-1].set_xticks(numbers, [f"{number:,}" for number in numbers])
    axes[-1].minorticks_off()
    axes[-1].set_xlabel("draws of data and of the student", fontsize=8)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, fontsize=6.8, handlelength=3)
    return save(figure, path, found, data)


def _head(found: Laboratory) -> float:
    """Inches for a warning."""
    return 0.3 if found.warning else 0.0
