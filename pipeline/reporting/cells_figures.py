"""Pictures of the whole grid: its matrix, a curve a cell, and clips of each cell under those of its start."""

import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.grid import Cell
from pipeline.reporting.cells import BETTER, START, WORSE, CellRow, Cells
from pipeline.reporting.read import TIMES, Study, lookup
from pipeline.reporting.samples import strip
from pipeline.reporting.style import FAINT, FLOOR, INK, WIDE, new_figure, save, without_grid
from pipeline.reporting.sweep_tables import reading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

SHADES = {BETTER: "#0072b2", WORSE: "#d55e00"}
MARKS = {BETTER: "▼ ", WORSE: "▲ "}  # for those who see no colours
PAPER, ABSENT, HATCH = "#f7f7f7", "#ededf0", "////"
LEAST_EXCESS = 1e-3  # below the noise of the measure: a logarithm is taken
MOST_DOUBLINGS = 2.0  # of the excess, where the scale of colours ends
LINE_LEN = 12  # letters of a loss's name over a column
DARK = 0.55  # of a colour's luminance, below which what stands on it is white
HEAD, HEAD_WARNED, PANEL, FOOT = 0.5, 0.85, 0.74, 0.38  # inches: above, a row of, and below the curves
NUM_SHOWN = 2  # clips of a cell


def draw_cells(found: Cells, study: Study, path: Path) -> Path:
    """Method by loss: excess FVD, the digit kept to the last frame; coloured about the start of the row."""
    import seaborn as sns

    doublings = np.array([[_doublings(found, Cell(m, loss)) for loss in found.losses] for m in found.methods])
    shades: Colormap = sns.blend_palette([SHADES[BETTER], PAPER, SHADES[WORSE]], as_cmap=True)
    figure = new_figure(WIDE, 0.75 + 0.52 * len(found.methods) + 0.35)
    axis = figure.add_subplot()
    sns.heatmap(
        np.nan_to_num(doublings), mask=np.isnan(doublings), cmap=shades, center=0, vmin=-MOST_DOUBLINGS,
        vmax=MOST_DOUBLINGS, linewidths=1.5, linecolor="white", ax=axis,
        cbar_kws={"location": "bottom", "shrink": 0.34, "aspect": 34, "pad": 0.03, "anchor": (0.0, 1.0)},
    )  # fmt: skip
    for row, method in enumerate(found.methods):
        start = found.starts.get(method)
        _label(axis, row, method, f"start {start.excess:.1f}" if start else "start unknown")
        for column, loss in enumerate(found.losses):
            cell = Cell(method, loss)
            shade = shades((doublings[row, column] / MOST_DOUBLINGS + 1) / 2)
            _fill(axis, (column, row), found, cell, "white" if _luminance(shade) < DARK else INK)
    _name_columns(axis, found)
    _explain(axis)
    return save(figure, path, study, list(_fields(found)))


def _fields(found: Cells) -> Iterator[dict[str, Any]]:
    """A row a field of the matrix: what is written in it, and the start of its row."""
    for loss in found.losses:
        for method in found.methods:
            cell = Cell(method, loss)
            row, start = found.trained.get(cell), found.start_of(cell)
            numbers = {
                "excess_fvd": row.excess if row else None,
                "low": row.excess_low if row else None,
                "high": row.excess_high if row else None,
                "first_to_last": row.first_to_last if row else None,
                "start_excess_fvd": start.excess if start else None,
                "num_clips": found.num_clips,
            }
            yield {**cell._asdict(), "status": found.verdict(cell) if row else _absence(found, cell), **numbers}


def _absence(found: Cells, cell: Cell) -> str:
    """Why nothing was trained, in a word."""
    return "excluded" if cell in found.excluded else "failed"


def _doublings(found: Cells, cell: Cell) -> float:
    """Of the excess from start to cell, as far as the colours go; nan where one is unknown."""
    start, row = found.start_of(cell), found.trained.get(cell)
    if start is None or row is None:
        return math.nan
    ratio = max(row.excess, LEAST_EXCESS) / max(start.excess, LEAST_EXCESS)
    return float(np.clip(math.log2(ratio), -MOST_DOUBLINGS, MOST_DOUBLINGS))


def _luminance(shade: tuple[float, ...]) -> float:
    return float(np.dot(shade[:3], (0.2126, 0.7152, 0.0722)))


def _label(axis: "Axes", row: int, method: str, below: str) -> None:
    how: dict[str, Any] = {"ha": "right", "textcoords": "offset points"}
    axis.annotate(
        method.replace("_", " "), (0, row + 0.5), xytext=(-6, 1), va="bottom", fontsize=8, weight="bold", **how
    )
    axis.annotate(below, (0, row + 0.5), xytext=(-6, -1.5), va="top", fontsize=7, color=FAINT, **how)


def _fill(axis: "Axes", corner: tuple[int, int], found: Cells, cell: Cell, ink: str) -> None:
    """What stands in one cell of the matrix."""
    from matplotlib.patches import Rectangle

    (column, row), trained = corner, found.trained.get(cell)
    if trained is None:
        _cross_out(axis, _absence(found, cell), (column + 0.02, row + 0.03, 0.96, 0.94))
        return
    said = found.verdict(cell)
    how: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
    axis.text(
        column + 0.5, row + 0.36, f"{MARKS.get(said, '')}{trained.excess:.1f}", fontsize=9.5,
        weight="bold" if said == BETTER else "normal", **how,
    )  # fmt: skip
    axis.text(column + 0.5, row + 0.74, f"{trained.first_to_last:.0%}", fontsize=7.5, **how)
    if trained == found.best:
        axis.add_patch(Rectangle((column + 0.03, row + 0.04), 0.94, 0.92, fill=False, edgecolor=INK, linewidth=2))


def _cross_out(axis: "Axes", said: str, box: tuple[float, float, float, float], transform: Any = None) -> None:
    """Where nothing was trained."""
    from matplotlib.patches import Rectangle

    left, bottom, width, height = box
    transform = transform or axis.transData
    how: dict[str, Any] = {"facecolor": ABSENT, "edgecolor": FLOOR, "hatch": HATCH, "linewidth": 0}
    axis.add_patch(Rectangle((left, bottom), width, height, transform=transform, **how))
    axis.text(
        left + width / 2, bottom + height / 2, said, ha="center", va="center", fontsize=7, color=INK,
        transform=transform, bbox={"facecolor": ABSENT, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def _name_columns(axis: "Axes", found: Cells) -> None:
    names = [textwrap.fill(loss.replace("_", " "), LINE_LEN) for loss in found.losses]
    axis.xaxis.tick_top()
    axis.set_xticks(np.arange(len(names)) + 0.5, names, fontsize=7.2, weight="bold", rotation=0)
    axis.set_yticks([])
    axis.tick_params(length=0)


def _explain(axis: "Axes") -> None:
    """The scale of colours, and what marks and numbers mean."""
    scale = axis.collections[0].colorbar
    assert scale is not None
    most = round(2**MOST_DOUBLINGS)
    ticks = {
        -MOST_DOUBLINGS: f"÷{most}",
        -1.0: "÷2",
        0.0: "start",
        1.0: f"{TIMES}2",
        MOST_DOUBLINGS: f"{TIMES}{most}",
    }
    scale.set_ticks(list(ticks), labels=list(ticks.values()), fontsize=7)
    scale.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    scale.ax.tick_params(length=0)
    scale.ax.text(
        1.06, 0.5,
        "excess FVD (lower is better), and digit kept from the first frame to the last\n"
        "▼ better, ▲ worse than the start, else not separated (95 % over clips, one seed); framed: the best",
        transform=scale.ax.transAxes, fontsize=7, va="center", linespacing=1.4,
    )  # fmt: skip


def draw_cell_curves(found: Cells, study: Study, path: Path) -> Path:
    """A panel a cell, losses down and methods across: the student's loss, and pale that of its critics."""
    head = HEAD_WARNED if study.warning else HEAD
    height = head + PANEL * len(found.losses) + FOOT
    figure = new_figure(WIDE, height)
    figure.set_layout_engine("none")  # the constrained one measures every label of every panel, twice
    axes = figure.subplots(
        len(found.losses), len(found.methods), squeeze=False, sharex=True,
        gridspec_kw={"left": 0.15, "right": 0.96, "wspace": 0.42, "hspace": 0.6,
                     "top": 1 - head / height, "bottom": FOOT / height},
    )  # fmt: skip
    how: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "weight": "bold"}
    for line, loss in zip(axes, found.losses, strict=True):
        for axis, method in zip(line, found.methods, strict=True):
            _draw_curve(axis, found, Cell(method, loss))
        name = textwrap.fill(loss.replace("_", " "), LINE_LEN)
        line[0].annotate(name, (0, 0.5), xytext=(-36, 0), ha="right", va="center", fontsize=8, **how)
    for axis, method in zip(axes[0], found.methods, strict=True):
        axis.annotate(method.replace("_", " "), (0.5, 1), xytext=(0, 17), ha="center", fontsize=9, **how)
    figure.text(0.54, 0.06 / height, "step", ha="center", fontsize=8)
    rows = [vars(point) for points in found.curves.values() for point in points]
    return save(figure, path, study, rows)


def _draw_curve(axis: "Axes", found: Cells, cell: Cell) -> None:
    axis.tick_params(labelsize=6, pad=1)
    axis.locator_params(nbins=3)
    if cell not in found.trained:
        _cross_out(axis, _absence(found, cell), (0.0, 0.0, 1.0, 1.0), axis.transAxes)
        axis.set_yticks([])
        return
    points = found.curves.get(cell, [])
    beside = axis.twinx()
    for on, name, how in (
        (beside, "critic_loss", {"color": FLOOR, "linewidth": 1.2}),
        (axis, "student_loss", {"color": INK, "linewidth": 1.3}),
    ):
        drawn = [(point.step, value) for point in points if (value := vars(point)[name]) is not None]
        on.plot(*zip(*drawn, strict=True), **how) if drawn else on.set_yticks([])
        on.yaxis.set_major_formatter("{x:g}")  # no power of ten apart, where the title stands
    beside.tick_params(labelsize=6, pad=1, labelcolor=FAINT, length=0)
    beside.locator_params(axis="y", nbins=3)
    without_grid(beside, "both")
    axis.set_zorder(beside.get_zorder() + 1)  # the student above its critics
    axis.patch.set_visible(False)
    said, start = found.verdict(cell), found.start_of(cell)
    begun = f"{start.excess:.1f} → " if start else ""
    axis.set_title(
        f"{MARKS.get(said, '')}{begun}{found.trained[cell].excess:.1f}", fontsize=7, pad=2,
        color=SHADES.get(said, INK), loc="left",
    )  # fmt: skip


def read_clips(reports: Path, found: Cells) -> dict[Cell, np.ndarray]:
    """uint8 (N, T, C, H, W) of every trained cell and every start.

    Raises:
        DamagedRecordError: samples.npz is missing, damaged, or lacks one of them.
    """
    path = reports / "cells" / "samples.npz"
    names = {
        cell: f"{cell.method}-{cell.loss}"
        for cell in (*(Cell(method, START) for method in found.starts), *found.trained)
    }
    with reading(path), np.load(path) as arrays:
        absent = [name for name in names.values() if name not in arrays]
        if absent:
            raise ValueError(f"it lacks {', '.join(absent)}")
        clips = {cell: arrays[name] for cell, name in names.items()}
        for cell, shown in clips.items():
            if shown.ndim != 5 or shown.dtype != np.uint8 or len(shown) == 0:
                raise ValueError(f"{names[cell]} must be uint8 (N, T, C, H, W), got {shown.shape}")
    return clips


def draw_cell_clips(found: Cells, study: Study, clips: dict[Cell, np.ndarray], path: Path) -> Path:
    """Losses down and methods across, first what each method starts from: clips, frame by frame."""
    num_frames = lookup(study.checkpoints[0].measured, "work.num_frames")
    rows = [START, *found.losses]
    figure = new_figure(WIDE, 0.35 + 0.6 * len(rows))
    axes = figure.subplots(len(rows), len(found.methods), squeeze=False)
    for line, loss in zip(axes, rows, strict=True):
        for axis, method in zip(line, found.methods, strict=True):
            _draw_clips(axis, found, clips, Cell(method, loss), num_frames)
        line[0].set_ylabel(textwrap.fill(loss.replace("_", " "), LINE_LEN), fontsize=8, weight="bold")
        line[0].yaxis.label.set(rotation=0, ha="right", va="center")
    for axis, method in zip(axes[0], found.methods, strict=True):
        axis.set_title(method.replace("_", " "), fontsize=9, loc="center")
    figure.align_ylabels(axes[:, 0])
    rows = [
        {**cell._asdict(), "clip": clip, "first_frame": 1, "last_frame": num_frames, "excess_fvd": row.excess}
        for cell, row in {**_starts(found), **found.trained}.items()
        for clip in range(NUM_SHOWN)
    ]
    return save(figure, path, study, rows)


def _starts(found: Cells) -> dict[Cell, CellRow]:
    """What each method starts from, as the cell of its clips."""
    return {Cell(method, START): row for method, row in found.starts.items()}


def _draw_clips(axis: "Axes", found: Cells, clips: dict[Cell, np.ndarray], cell: Cell, num_frames: int) -> None:
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
    if cell not in clips:
        _cross_out(axis, _absence(found, cell), (0.0, 0.0, 1.0, 1.0), axis.transAxes)
        return
    axis.imshow(strip(clips[cell][:NUM_SHOWN, :num_frames]), cmap="gray", vmin=0, vmax=255, interpolation="none")
