"""The matrix of a sweep, method by loss, and the marks that its figures share."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.grid import Cell
from pipeline.losses import LOSSES
from pipeline.reporting.read import Study
from pipeline.reporting.style import FAINT, FLOOR, HUES, INK, MARKERS, WIDE, new_figure, save
from pipeline.reporting.sweep_csv import MeanRow
from pipeline.reporting.sweep_read import DEFAULT, EXCLUDED, FAILED, MISSING, START, TUNED, Found, bounds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize

TITLES = {DEFAULT: "Default settings", TUNED: "Tuned"}
PAPER, DEEP = "#eef3f8", "#023858"  # of the scale of colours: bad and good, told apart in grey too
FRAME = "#e69f00"
ABSENT, HATCH = "#ededf0", "////"
LEAST_EXCESS = 0.1  # below the noise of the measure: a logarithm is taken
MOST_BESIDE = 6  # losses up to which two matrices stand side by side
DARK = 0.55  # of a colour's luminance, below which what stands on it is white
MOST_LINES = 4  # of a reason inside a field
TICKS = {0.0: (1, 1.5, 2, 3, 5, 7), 1.0: (1, 2, 5), 2.0: (1, 3), 3.0: (1,)}  # of a decade, by how many there are
LETTER = 0.052  # inches of a letter of 6 points
NAME_LEN = 12  # letters in a line of a loss's name
BOLD, BESIDE = 0.56 / 72, 0.24  # inches of a bold letter a point, and around a name

Row = dict[str, Any]


def seeds_and_clips(found: Found, phase: str) -> str:
    """What stands behind the numbers of a phase."""
    seeds = found.num_seeds(phase)
    return f"{seeds} seed{'s' * (seeds > 1)}, {found.num_clips:,} clips each"


def lines_of(loss: str) -> list[str]:
    """Its name for people."""
    return textwrap.wrap(loss.replace("_", " "), NAME_LEN)


def room_of(losses: Sequence[str], points: float) -> float:
    """Inches that their names take up in bold letters of that size."""
    return BESIDE + BOLD * points * max(len(line) for loss in losses for line in lines_of(loss))


def look_of(found: Found, loss: str) -> dict[str, Any]:
    """The colour of a loss, the same in every figure, and a marker of its own among the losses of the sweep."""
    if loss == START:
        return {"color": INK, "linestyle": (0, (3, 2)), "linewidth": 1.3}
    rank = found.losses.index(loss)
    lines = ("-", (0, (5, 1.5)), (0, (1, 1)))
    return {
        "color": HUES[list(LOSSES).index(loss)],
        "marker": MARKERS[rank % len(MARKERS)],
        "linestyle": lines[rank // len(MARKERS) % len(lines)],
        "linewidth": 1.4,
    }


def draw_matrix(found: Found, study: Study, path: Path) -> Path:
    """Mean excess FVD with its interval over seeds, by method and loss; a matrix a phase."""
    phases, is_beside = found.phases, len(found.losses) <= MOST_BESIDE
    num_rows, num_columns = (1, len(phases)) if is_beside else (len(phases), 1)
    figure = new_figure(WIDE, num_rows * (0.55 + 0.66 * len(found.methods)) + 0.75)
    axes = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    scale, shades = scale_of(found), shades_of_excess()
    for axis, phase in zip(axes, phases, strict=True):
        _draw_phase(axis, found, phase, scale, shades, is_first=axis is axes[0] or not is_beside)
    _explain(figure, axes, scale, shades)
    return save(figure, path, study, fields_of(found))


def fields_of(found: Found) -> list[Row]:
    """A row a field of the matrix or a start: mean excess FVD, its interval over seeds, or why there is none."""
    rows = []
    for phase in (START, *found.phases):
        for loss in (START,) if phase == START else found.losses:
            for method in found.methods:
                cell, row = Cell(method, loss), found.excess(phase, Cell(method, loss))
                ends = bounds(row) if row else None
                status, reason = ("done", "") if row else found.absence(phase, cell)
                rows.append(
                    {
                        "phase": phase,
                        **cell._asdict(),
                        "status": status,
                        "excess_fvd": row.mean if row else None,
                        "low": ends[0] if ends else None,
                        "high": ends[1] if ends else None,
                        "num_seeds": row.num_seeds if row else 0,
                        "num_clips": found.num_clips,
                        "reason": reason,
                    }
                )
    return rows


def scale_of(found: Found) -> "Normalize":
    """One for both phases, so that equal colours are equal numbers."""
    from matplotlib.colors import LogNorm

    values = [clipped(of["excess"]) for phase in found.phases for of in found.means[phase].values()]
    return LogNorm(min(values), max(*values, min(values) * 1.5))


def shades_of_excess() -> "Colormap":
    import seaborn as sns

    return sns.blend_palette([DEEP, "#0072b2", "#8fc1e3", PAPER], as_cmap=True)


def clipped(row: MeanRow) -> float:
    return max(row.mean, LEAST_EXCESS)


def _draw_phase(
    axis: "Axes", found: Found, phase: str, scale: "Normalize", shades: "Colormap", *, is_first: bool
) -> None:
    axis.set(xlim=(0, len(found.losses)), ylim=(len(found.methods), 0))
    axis.set_title(f"{TITLES[phase]}: {seeds_and_clips(found, phase)}", fontsize=8.5, pad=6)
    best = found.by_excess(phase)[0]
    for row, method in enumerate(found.methods):
        if is_first:
            start = found.excess(START, Cell(method, START))
            _label(axis, row, method, f"starts at {start.mean:.1f}" if start else "")
        for column, loss in enumerate(found.losses):
            cell = Cell(method, loss)
            measured = found.excess(phase, cell)
            if measured is None:
                _write_absence(axis, found, phase, cell, (column, row))
            else:
                _fill(axis, (column, row), measured, shades(scale(clipped(measured))), is_best=cell == best)
    names = ["\n".join(lines_of(loss)) for loss in found.losses]
    axis.set_xticks(np.arange(len(found.losses)) + 0.5, names)
    axis.tick_params(length=0, labelsize=8)
    axis.xaxis.tick_top()
    axis.set_yticks([])
    plain(axis)


def plain(axis: "Axes") -> None:
    """Without grid and frame."""
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def plain_numbers(axis: "Axes") -> None:
    """No powers of ten on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullLocator

    for of in (axis.xaxis, axis.yaxis):
        if of.get_scale() == "log":
            low, high = of.get_view_interval()
            subs = max((least, ticks) for least, ticks in TICKS.items() if least <= math.log10(high / low))[1]
            of.set_major_locator(LogLocator(subs=subs))
            of.set_minor_locator(NullLocator())
            of.set_major_formatter("{x:g}")


def _label(axis: "Axes", row: int, method: str, below: str) -> None:
    how: dict[str, Any] = {"ha": "right", "textcoords": "offset points"}
    place = (0, row + 0.5)
    axis.annotate(method.replace("_", " "), place, xytext=(-6, 1), va="bottom", fontsize=8, weight="bold", **how)
    axis.annotate(below, place, xytext=(-6, -1.5), va="top", fontsize=7, color=FAINT, **how)


def _fill(axis: "Axes", corner: tuple[int, int], row: MeanRow, shade: tuple[float, ...], *, is_best: bool) -> None:
    """The mean over its interval; framed where it is the best."""
    from matplotlib.patches import Rectangle

    x, y = corner
    frame: dict[str, Any] = {"edgecolor": FRAME, "linewidth": 2.4} if is_best else {"linewidth": 0}
    axis.add_patch(Rectangle((x + 0.02, y + 0.03), 0.96, 0.94, facecolor=shade, **frame))
    how: dict[str, Any] = {"ha": "center", "va": "center", "color": ink_on(shade)}
    ends = bounds(row)
    axis.text(x + 0.5, y + 0.38, f"{row.mean:.1f}", fontsize=10, weight="bold" if is_best else "normal", **how)
    below = f"[{ends[0]:.1f}, {ends[1]:.1f}]" if ends else f"{row.num_seeds} seed"
    axis.text(x + 0.5, y + 0.72, below, fontsize=6.6, **how)


def ink_on(shade: tuple[float, ...]) -> str:
    """The colour of letters that can be read on another."""
    return "white" if float(np.dot(shade[:3], (0.2126, 0.7152, 0.0722))) < DARK else INK


def _write_absence(axis: "Axes", found: Found, phase: str, cell: Cell, corner: tuple[int, int]) -> None:
    said, reason = found.absence(phase, cell)
    width = axis.get_position().width * WIDE / len(found.losses)
    lines = textwrap.wrap(reason, max(8, int(width / LETTER)), max_lines=MOST_LINES, placeholder=" …")
    cross_out(axis, (corner[0] + 0.02, corner[1] + 0.03, 0.96, 0.94), said, "\n".join(lines))


def cross_out(
    axis: "Axes", box: tuple[float, float, float, float], said: str, reason: str = "", transform: Any = None
) -> None:
    """Where there is no number: excluded, failed or missing, which differ without colour too."""
    from matplotlib.patches import Rectangle

    left, bottom, width, height = box
    looks: dict[str, dict[str, Any]] = {
        EXCLUDED: {"facecolor": ABSENT, "linewidth": 0},
        FAILED: {"facecolor": ABSENT, "edgecolor": FLOOR, "hatch": HATCH, "linewidth": 0},
        MISSING: {"facecolor": "none", "edgecolor": FLOOR, "linestyle": "dashed", "linewidth": 1},
    }
    transform = transform or axis.transData
    axis.add_patch(Rectangle((left, bottom), width, height, transform=transform, **looks[said]))
    behind = {"facecolor": ABSENT if said == FAILED else "none", "edgecolor": "none", "pad": 1.0}
    axis.text(
        left + width / 2, bottom + height / 2, f"{said}:\n{reason}" if reason else said, ha="center", va="center",
        fontsize=6 if reason else 7, color=INK, transform=transform, bbox=behind, linespacing=1.1,
    )  # fmt: skip


def _explain(figure: Any, axes: Any, scale: "Normalize", shades: "Colormap") -> None:
    """The scale of colours."""
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(
        ScalarMappable(scale, shades), ax=list(axes), location="bottom", shrink=0.34, aspect=34, pad=0.04,
        anchor=(0.0, 1.0),
    )  # fmt: skip
    ticks = [n * 10.0**power for power in (-1, 0, 1, 2, 3) for n in (1, 2, 3, 5, 7)]
    low, high = float(scale.vmin or 0.0), float(scale.vmax or 0.0)
    bar.set_ticks([tick for tick in ticks if low <= tick <= high])
    bar.ax.minorticks_off()
    bar.ax.xaxis.set_major_formatter("{x:g}")
    bar.ax.tick_params(length=0, labelsize=7)
    bar.outline.set_visible(False)
    bar.ax.text(
        1.06, 0.5,
        "excess FVD (lower is better; its unit is the squared one of the features), mean over seeds;\n"
        "below it, its interval over seeds; framed: the best of its matrix",
        transform=bar.ax.transAxes, fontsize=7, va="center", linespacing=1.4,
    )  # fmt: skip
