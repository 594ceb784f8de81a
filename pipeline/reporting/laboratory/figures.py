"""Pictures of the laboratory that need no map: best fits, laws of clips, and modes kept."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.laboratory.verdicts import Parameters
from pipeline.reporting.laboratory import shown, words
from pipeline.reporting.laboratory.laws import Mixture, ellipse, of_student
from pipeline.reporting.laboratory.maps import FONT, WIDTH, hue, mark
from pipeline.reporting.laboratory.results import EXACT, LEARNED, Judged, Laboratory
from pipeline.reporting.style import INK, new_figure, save, without_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST_FITS = {  # objective: colour of the loss that is said to minimise it, and the kind of line
    "forward_kl": ("#4d4d4d", "-"),
    "jensen_shannon": ("#d55e00", (0, (5, 1.5))),
    "reverse_kl": ("#0072b2", (0, (7, 1.4, 1, 1.4))),
    "softened_reverse_kl": ("#cc79a7", (0, (1.5, 1.2))),
}
LINES = ("-", (0, (4, 1.2)), (0, (7, 1.4, 1, 1.4)))  # of cells
SUPPOSED = ((0, (1, 1.2)), (0, (1, 3)))  # lines of optima that a claim supposes
ELLIPSES: tuple[dict[str, Any], ...] = (  # of cells: one is seen through another that it coincides with
    {"linewidth": 1.7},
    {"linewidth": 4.2, "alpha": 0.35},
    {"linewidth": 1.3, "linestyle": (0, (7, 1.4, 1, 1.4))},
)
DATA = "#dcdce2"  # what data fill
LEVELS = (0.02, 0.08, 0.25, 0.6)  # of contours, as shares of the greatest density
RADIUS = 1.5  # standard deviations of an ellipse


def draw_best_fits(found: Laboratory, processes: Sequence[str], path: Path) -> Path:
    """The density of data, and over it the Gaussian that is the best under each divergence, as predicted."""
    figure = new_figure(WIDTH, 2.35 * len(processes) + (0.3 if found.warning else 0))
    data = []
    for axis, process in zip(figure.subplots(len(processes), 1, squeeze=False)[:, 0], processes, strict=True):
        fits = {name: at for name, at in found.best(process).items() if name in BEST_FITS}
        curves = {
            f"{words.objective(name)}  ({at['m']:.2f}, {at['s']:.2f})": (at, *BEST_FITS[name])
            for name, at in ((name, fits[name]) for name in BEST_FITS if name in fits)
        }
        law = found.laws[process].first(1)
        _densities(axis, law, curves)
        axis.set_title(f"Process {process}: {re.split('[:;]', found.about(process))[0]}")
        data += shown.of_data(process, law)
        data += [shown.of_optimum(process, name, fits[name]) for name in BEST_FITS if name in fits]
    return save(figure, path, found, data)


def draw_fits(found: Laboratory, rows: Sequence[Judged], supposed: Sequence[str], path: Path) -> Path:
    """The same for the optima that are supposed, dotted and in black, and for cells."""
    process = rows[0].process
    fits: dict[str, tuple[Parameters, str, Any]] = {}
    for number, name in enumerate(supposed):
        fits[_optimum(name)] = (found.best(process)[name], INK, SUPPOSED[number % len(SUPPOSED)])
    for number, row in enumerate(rows):
        fits[words.cell(row.cell, short=True)] = (row.at, hue(found, row.cell), LINES[number % len(LINES)])
    figure = new_figure(WIDTH, 2.5 + (0.3 if found.warning else 0))
    _densities(figure.add_subplot(), found.laws[process].first(1), fits)
    return save(figure, path, found, _data_of_laws(found, rows, supposed, 1))


def _optimum(name: str) -> str:
    return f"optimum of {words.objective(name, short=True)}"


def _data_of_laws(
    found: Laboratory, rows: Sequence[Judged], supposed: Sequence[str], num_frames: int
) -> list[shown.Row]:
    process = rows[0].process
    return [
        *shown.of_data(process, found.laws[process].first(num_frames)),
        *(shown.of_optimum(process, name, found.best(process)[name]) for name in supposed),
        *(shown.of_cell(row) for row in rows),
    ]


def _densities(axis: "Axes", law: Mixture, fits: Mapping[str, tuple[Parameters, str, Any]]) -> None:
    spread = np.sqrt(law.covariances[:, 0, 0])
    x = np.linspace((law.means[:, 0] - 3 * spread).min(), (law.means[:, 0] + 3 * spread).max(), 400)
    axis.fill_between(x, law.density(x[:, None]), color=DATA, linewidth=0, label="data")
    for label, (at, colour, line) in fits.items():
        axis.plot(x, of_student(at).density(x[:, None]), color=colour, linestyle=line, label=label, linewidth=1.7)
    axis.set(xlim=(x[0], x[-1]), ylim=(0, None), yticks=[])
    axis.tick_params(labelsize=7.5)
    axis.legend(fontsize=FONT, loc="upper right", borderaxespad=0.1, handlelength=2.6)


def draw_clips(found: Laboratory, rows: Sequence[Judged], supposed: Sequence[str], path: Path) -> Path:
    """Two frames of a clip: shaded, how probable data are; ellipses: in black the optima supposed, then cells."""
    process = rows[0].process
    figure = new_figure(WIDTH, 3.4 + (0.3 if found.warning else 0))
    axis = figure.add_subplot()
    law = found.laws[process].first(2)
    spread = np.sqrt(np.diagonal(law.covariances, axis1=1, axis2=2))
    low, high = (law.means - 2.4 * spread).min(0), (law.means + 2.4 * spread).max(0)
    high[1] += 0.35 * (high[1] - low[1])  # room for the legend
    across, up = (np.linspace(*ends, 180) for ends in zip(low, high, strict=True))
    values = law.density(np.stack(np.meshgrid(across, up), -1))
    heights = [share * values.max() for share in LEVELS]
    axis.contourf(
        across, up, values, levels=[*heights, values.max()], colors=["#efeff3", "#dfdfe6", "#c9c9d3", "#b2b2bf"]
    )
    for name in supposed:
        points = ellipse(of_student(found.best(process)[name]), RADIUS)
        axis.plot(*points, color=INK, linewidth=1.2, linestyle=SUPPOSED[0], label=_optimum(name), zorder=4)
    for number, row in enumerate(rows):
        colour, law_of_row, look = hue(found, row.cell), of_student(row.at), ELLIPSES[number % len(ELLIPSES)]
        axis.plot(*ellipse(law_of_row, RADIUS), color=colour, label=words.cell(row.cell, short=True), **look)
        axis.plot(*law_of_row.means[0], mark(found, row.cell), color=colour, markersize=4)
    axis.set_xlabel("first frame", fontsize=8)
    axis.set_ylabel("second frame", fontsize=8)
    axis.tick_params(labelsize=7.5)
    axis.legend(fontsize=FONT, loc="upper right", borderaxespad=0.1, handlelength=2.6)
    return save(figure, path, found, _data_of_laws(found, rows, supposed, 2))


def rarest(found: Laboratory, process: str) -> tuple[int, float]:
    """The mode of a process that data have least of, of those that can be told apart, and how much.

    Raises:
        ValueError: a process of one such mode.
    """
    shares = found.laws[process].shares.tolist()
    if process not in with_modes(found):
        raise ValueError(f"process {process} must have several modes, and has one")
    number = min(found.modes[process], key=shares.__getitem__)
    return number, shares[number]


def with_modes(found: Laboratory) -> list[str]:
    """The processes of several modes that can be told apart."""
    return [process for process in found.processes if len(found.modes[process]) > 1]


def draw_modes(found: Laboratory, path: Path) -> Path:
    """A row a cell: which share of its clips is in the mode that is rarest in data, and which share of data is.

    With the interval over seeds.
    """
    processes = with_modes(found)
    groups = {
        process: sorted(
            (row for row in found.judged if row.process == process),
            key=lambda row: -row.kept[rarest(found, process)[0]],
        )
        for process in processes
    }
    counts = [len(rows) for rows in groups.values()]
    figure = new_figure(WIDTH, 0.165 * sum(counts) + 0.42 * len(processes) + 0.4)
    axes = figure.subplots(
        len(processes),
        1,
        squeeze=False,
        sharex=True,
        gridspec_kw={"height_ratios": [count + 1 for count in counts]},
    )[:, 0]
    data = []
    for axis, (process, rows) in zip(axes, groups.items(), strict=True):
        number, of_data = rarest(found, process)
        for place, row in enumerate(rows):
            colour, value = hue(found, row.cell), row.kept[number]
            half_width = _half_width_of_share(found, row, number)
            named = {"process": process, "cell": row.cell, "critics": row.critics, "mode": number}
            data.append({**named, "share": value, "half_width": half_width, "data_share": of_data})
            axis.plot((of_data, value), (place, place), color=colour, linewidth=1, alpha=0.5)
            if half_width is not None:
                axis.errorbar(value, place, xerr=half_width, color=colour, linewidth=1.6)
            face = colour if row.critics == EXACT else "white"
            axis.plot(value, place, mark(found, row.cell), mfc=face, mec=colour, markersize=4.6)
        axis.axvline(of_data, color=INK, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        learned = {LEARNED: ", learned critics", EXACT: ""}
        names = [words.cell(row.cell, short=True) + learned[row.critics] for row in rows]
        axis.set_yticks(range(len(rows)), names, fontsize=6.8)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_title(f"Process {process}: {words.share(of_data)} of data", fontsize=8.5)
        axis.tick_params(axis="x", labelsize=7.5)
        without_grid(axis, "y")
    axes[-1].set_xlim(0, 1.08 * axes[-1].get_xlim()[1])
    axes[-1].xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes[-1].set_xlabel("share of clips in the rarest mode", fontsize=8)
    return save(figure, path, found, data)


def _half_width_of_share(found: Laboratory, row: Judged, mode: int) -> float | None:
    """Half the 95 % interval over seeds; None of one seed."""
    named = (row.cell, row.process, row.critics)
    seeds = [one for one in found.measured if (one.cell, one.process, one.critics) == named]
    return shown.half_width([one.kept[mode] for one in seeds])
