"""Pictures of the laboratory that need no map: best fits, laws of clips, modes kept, and roll-outs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.laboratory.verdicts import Parameters
from pipeline.reporting.laboratory import words
from pipeline.reporting.laboratory.laws import ellipse, mode_shares, of_process, of_student
from pipeline.reporting.laboratory.maps import FONT, WIDTH, hue, mark, stacked
from pipeline.reporting.laboratory.results import EXACT, LEARNED, Judged, Laboratory
from pipeline.reporting.style import FAINT, FLOOR, INK, new_figure, save, without_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST_FITS = {  # objective: colour of the loss that is said to minimise it, and the kind of line
    "forward_kl": ("#4d4d4d", "-"),
    "jensen_shannon": ("#d55e00", (0, (5, 1.5))),
    "reverse_kl": ("#0072b2", (0, (7, 1.4, 1, 1.4))),
    "softened_reverse_kl": ("#cc79a7", (0, (1.5, 1.2))),
}
TITLES = {  # of processes, where a picture shows them
    "A": "Process A: lopsided, two modes that touch",
    "B": "Process B: two modes apart",
}
DATA = "#dcdce2"  # what data fill
LEVELS = (0.02, 0.08, 0.25, 0.6)  # of contours, as shares of the greatest density
RADIUS = 1.5  # standard deviations of an ellipse
ROLLOUTS = {  # colour and line of what is rolled out
    "teacher_forcing": ("#d55e00", "-"),
    "diffusion_forcing": ("#0072b2", "-"),
    "self_forcing": ("#009e73", "-"),
}
CONTEXTS = ((0, (6, 1.4)), (0, (3.5, 1.4)), (0, (1, 1)))  # lines of context noise, the more the finer


def draw_best_fits(found: Laboratory, processes: Sequence[str], path: Path) -> Path:
    """The density of data, and over it the Gaussian that is the best under each divergence, as predicted."""
    figure = new_figure(WIDTH, 2.35 * len(processes) + (0.3 if found.warning else 0))
    for axis, process in zip(figure.subplots(len(processes), 1, squeeze=False)[:, 0], processes, strict=True):
        fits = {name: at for name, at in found.best(process).items() if name in BEST_FITS}
        curves = {
            f"{words.objective(name)}  ({at['m']:.2f}, {at['s']:.2f})": (at, *BEST_FITS[name])
            for name, at in ((name, fits[name]) for name in BEST_FITS if name in fits)
        }
        _densities(axis, process, curves)
        axis.set_title(TITLES.get(process, f"Process {process}"))
    return save(figure, path, found)


def draw_fits(found: Laboratory, process: str, fits: Mapping[str, tuple[Parameters, str, Any]], path: Path) -> Path:
    """The same for Gaussians that are given: label -> parameters, colour, line."""
    figure = new_figure(WIDTH, 2.5 + (0.3 if found.warning else 0))
    _densities(figure.add_subplot(), process, fits)
    return save(figure, path, found)


def _densities(axis: "Axes", process: str, fits: Mapping[str, tuple[Parameters, str, Any]]) -> None:
    law = of_process(process, 1)
    spread = np.sqrt(law.covariances[:, 0, 0])
    x = np.linspace((law.means[:, 0] - 3 * spread).min(), (law.means[:, 0] + 3 * spread).max(), 400)
    axis.fill_between(x, law.density(x[:, None]), color=DATA, linewidth=0, label="data")
    for label, (at, colour, line) in fits.items():
        axis.plot(x, of_student(at).density(x[:, None]), color=colour, linestyle=line, label=label, linewidth=1.7)
    axis.set(xlim=(x[0], x[-1]), ylim=(0, None), yticks=[])
    axis.tick_params(labelsize=7.5)
    axis.legend(fontsize=FONT, loc="upper right", borderaxespad=0.1, handlelength=1.9)


def draw_clips(found: Laboratory, rows: Sequence[Judged], supposed: Sequence[str], path: Path) -> Path:
    """Two frames of a clip: shaded, how probable data are; ellipses: in black the optima supposed, then cells."""
    process = rows[0].process
    figure = new_figure(WIDTH, 3.4 + (0.3 if found.warning else 0))
    axis = figure.add_subplot()
    law = of_process(process, 2)
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
        label = f"optimum of {words.objective(name, short=True)}"
        axis.plot(*points, color=INK, linewidth=1.2, linestyle=(0, (1, 1.2)), label=label)
    for number, row in enumerate(rows):
        look: Any = {"color": hue(found, row.cell), "linestyle": ("-", (0, (4, 1.3)), (0, (1, 1)))[number % 3]}
        law_of_row = of_student(row.at)
        axis.plot(*ellipse(law_of_row, RADIUS), linewidth=1.7, label=words.cell(row.cell, short=True), **look)
        axis.plot(*law_of_row.means[0], mark(found, row.cell), color=look["color"], markersize=4)
    axis.set_xlabel("first frame", fontsize=8)
    axis.set_ylabel("second frame", fontsize=8)
    axis.tick_params(labelsize=7.5)
    axis.legend(fontsize=FONT, loc="upper right", borderaxespad=0.1, handlelength=1.9)
    return save(figure, path, found)


def rarest(process: str) -> tuple[int, float]:
    """The mode of a process that data have least of, and how much; ValueError where there is one mode."""
    shares = mode_shares(process)
    if len(shares) < 2:
        raise ValueError(f"process {process} must have several modes, and has one")
    number = min(range(len(shares)), key=shares.__getitem__)
    return number, shares[number]


def with_modes(found: Laboratory) -> list[str]:
    """The processes of several modes."""
    return [process for process in found.processes if len(mode_shares(process)) > 1]


def draw_modes(found: Laboratory, path: Path) -> Path:
    """A row a cell: which share of its clips is in the mode that is rarest in data, and which share of data is."""
    processes = with_modes(found)
    groups = {
        process: sorted(
            (row for row in found.judged if row.process == process), key=lambda row: -row.kept[rarest(process)[0]]
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
    for axis, (process, rows) in zip(axes, groups.items(), strict=True):
        number, of_data = rarest(process)
        for place, row in enumerate(rows):
            colour, value = hue(found, row.cell), row.kept[number]
            axis.plot((of_data, value), (place, place), color=colour, linewidth=1, alpha=0.5)
            face = colour if row.critics == EXACT else "white"
            axis.plot(value, place, mark(found, row.cell), mfc=face, mec=colour, markersize=4.6)
        axis.axvline(of_data, color=INK, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        learned = {LEARNED: ", learned critics", EXACT: ""}
        names = [words.cell(row.cell, short=True) + learned[row.critics] for row in rows]
        axis.set_yticks(range(len(rows)), names, fontsize=6.8)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_title(f"Process {process}: of data {words.share(of_data)} in this mode", fontsize=8.5)
        axis.tick_params(axis="x", labelsize=7.5)
        without_grid(axis, "y")
    axes[-1].set_xlim(0, 1.08 * axes[-1].get_xlim()[1])
    axes[-1].xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes[-1].set_xlabel("share of clips in the rarest mode", fontsize=8)
    return save(figure, path, found)


def rolled(found: Laboratory) -> dict[str, dict[str, np.ndarray]]:
    """Of each that was rolled out, by frame: the mean over seeds of every number."""
    by_name: dict[str, dict[int, list[Any]]] = {}
    for row in found.rolled:
        by_name.setdefault(row.rollout, {}).setdefault(row.seed, []).append(row)
    numbers = ("mean", "variance", "predicted_variance", "reverse_kl_by_frame")
    return {
        name: {
            number: np.mean(
                [
                    [vars(row)[number] or 0.0 for row in sorted(rows, key=lambda row: row.frame)]
                    for rows in seeds.values()
                ],
                axis=0,
            )
            for number in numbers
        }
        for name, seeds in by_name.items()
    }


def rollout_words(name: str) -> str:
    """What was rolled out."""
    method, _, variant = name.partition("-")
    short = words.INITIALS.get(method, method)
    if variant.startswith("context_"):
        return f"{short}, context noise {variant.removeprefix('context_')}"
    return f"{short}, {variant}" if variant else short


def _rollout_look(name: str, names: Sequence[str]) -> dict[str, Any]:
    method, _, variant = name.partition("-")
    colour, line = ROLLOUTS[method]
    if variant.startswith("context_"):
        same = [other for other in names if other.startswith(f"{method}-context_")]
        return {"color": colour, "linestyle": CONTEXTS[same.index(name) % len(CONTEXTS)]}
    return {"color": colour, "linestyle": (0, (2, 1.6)) if variant else line}


def draw_exposure(found: Laboratory, path: Path) -> Path:
    """By frame: variance, over it the closed form; mean; and the reverse KL summed so far."""
    series = rolled(found)
    figure = new_figure(WIDTH, 6.0)
    figure.set_layout_engine("none")
    panels = {"variance": "Variance of a frame", "mean": "Mean of a frame", "reverse": "Reverse KL so far, nats"}
    top = PLACE["top"] - (0.04 if found.warning else 0)
    axes = figure.subplots(len(panels), 1, sharex=True, gridspec_kw={**PLACE, "top": top})
    trained = found.params["exposure"]["trained_frames"]
    for axis, (panel, title) in zip(axes, panels.items(), strict=True):
        ends = {}
        for name, numbers in series.items():
            look = _rollout_look(name, list(series))
            values = np.cumsum(numbers["reverse_kl_by_frame"]) if panel == "reverse" else numbers[panel]
            frames = np.arange(1, len(values) + 1)
            axis.plot(frames, values, linewidth=1.6, **look)
            if panel == "variance":
                axis.plot(
                    frames[::2],
                    numbers["predicted_variance"][::2],
                    "o",
                    markersize=2.6,
                    mfc="white",
                    mec=look["color"],
                )
            ends[name] = float(values[-1])
        axis.axvline(trained, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=7.5)
        if panel == "mean":
            room = max(0.05, *(np.abs(numbers["mean"]).max() * 1.2 for numbers in series.values()))
            axis.set_ylim(-room, room)
        else:
            _name_ends(axis, ends, list(series), ".2f" if panel == "variance" else ".2g")
    axes[0].axhline(1, color=FAINT, linewidth=0.9)
    axes[0].annotate("training\nends", (trained, 1), xycoords=("data", "axes fraction"), xytext=(3, -3),
                     textcoords="offset points", va="top", fontsize=6.8, color=INK)  # fmt: skip
    axes[-1].set_xlabel("frame", fontsize=8)
    return save(figure, path, found)


LEADER: Any = {"arrowstyle": "-", "color": FLOOR, "linewidth": 0.6}
PLACE = {"left": 0.1, "right": 0.61, "top": 0.93, "bottom": 0.075, "hspace": 0.32}


def _name_ends(axis: "Axes", ends: Mapping[str, float], names: Sequence[str], digits: str) -> None:
    """What a line is, at its end; those that end together one under another."""
    low, high = axis.get_ylim()
    order = sorted(ends, key=lambda name: -ends[name])
    places = stacked([(ends[name] - low) / (high - low) for name in order], [0.1] * len(order), 1.0)
    for name, place in zip(order, places, strict=True):
        colour = _rollout_look(name, names)["color"]
        axis.annotate(
            f"{rollout_words(name)}: {ends[name]:{digits}}", (1, place), xycoords="axes fraction", xytext=(8, 0),
            textcoords="offset points", va="center", fontsize=FONT, color=colour, annotation_clip=False,
        )  # fmt: skip
        end = (ends[name] - low) / (high - low)
        axis.annotate("", (1, end), (1.025, place), xycoords="axes fraction", textcoords="axes fraction",
                      arrowprops=LEADER, annotation_clip=False)  # fmt: skip
