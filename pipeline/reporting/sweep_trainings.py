"""How the cells of a sweep were trained, over seeds, and the clips that they make."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.grid import Cell
from pipeline.reporting.read import Study, lookup
from pipeline.reporting.samples import strip
from pipeline.reporting.style import HUES, WIDE, new_figure, save, without_grid
from pipeline.reporting.sweep_csv import CurvePoint
from pipeline.reporting.sweep_figures import TITLES, cross_out, lines_of, plain, room_of
from pipeline.reporting.sweep_read import COMPARED, DEFAULT, EXCESS, START, TUNED, Found
from pipeline.reporting.sweep_tables import reading

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS: dict[str, dict[str, Any]] = {  # of the student's loss, by phase
    DEFAULT: {"color": HUES[6], "linestyle": (0, (3, 1.5)), "linewidth": 1.2},
    TUNED: {"color": HUES[1], "linewidth": 1.5},
}
CRITICS: dict[str, Any] = {"color": HUES[5], "linestyle": (0, (1, 1)), "linewidth": 1.3}
PANEL, HEAD, FOOT = 0.95, 0.34, 0.75  # inches: a row of curves, above and below them
LOSS_POINTS = 8.0  # of the names of losses
ASIDE = 0.4  # inches between a name and its row
NUM_SHOWN = 2  # clips of a cell


def draw_curves(found: Found, study: Study, path: Path) -> Path:
    """A panel a cell, losses down and methods across: mean and range over seeds of the student's loss."""
    from matplotlib.lines import Line2D

    head = HEAD + (0.35 if study.warning else 0.0)
    height = head + PANEL * len(found.losses) + FOOT
    left = room_of(found.losses, LOSS_POINTS) + ASIDE
    figure = new_figure(WIDE, height)
    figure.set_layout_engine("none")  # the constrained one measures every label of every panel, twice
    axes = figure.subplots(
        len(found.losses), len(found.methods), squeeze=False,
        gridspec_kw={"left": left / WIDE, "right": 0.955, "wspace": 0.42, "hspace": 0.42,
                     "top": 1 - head / height, "bottom": FOOT / height},
    )  # fmt: skip
    how: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "weight": "bold"}
    for line, loss in zip(axes, found.losses, strict=True):
        for axis, method in zip(line, found.methods, strict=True):
            _draw_cell(axis, found, Cell(method, loss))
        line[0].annotate(
            "\n".join(lines_of(loss)), (0, 0.5), xytext=(-72 * ASIDE, 0), ha="right", va="center",
            fontsize=LOSS_POINTS, **how,
        )  # fmt: skip
    for axis, method in zip(axes[0], found.methods, strict=True):
        axis.annotate(method.replace("_", " "), (0.5, 1), xytext=(0, 8), ha="center", fontsize=9, **how)
    figure.text(0.52, 0.42 / height, "step (update of the student)", ha="center", fontsize=8)
    looks = {f"student, {TITLES[phase].lower()}": LOOKS[phase] for phase in found.phases}
    lines = [
        Line2D([], [], label=name, **look) for name, look in {**looks, "critics (right axis)": CRITICS}.items()
    ]
    figure.legend(handles=lines, loc="lower center", ncols=len(lines), fontsize=8)
    return save(figure, path, study, list(_curve_rows(found)))


def _curve_rows(found: Found) -> Iterator[dict[str, Any]]:
    """A row a point of a line."""
    for (phase, cell), points in found.curves.items():
        names = ("student_loss", "critic_loss") if phase == found.last else ("student_loss",)
        for name in names if phase in found.phases else ():
            for step, values in _by_step(points, name).items():
                spread = {"mean": float(np.mean(values)), "min": min(values), "max": max(values)}
                yield {
                    **{"phase": phase, **cell._asdict(), "step": step, "quantity": name},
                    **spread,
                    "num_seeds": len(values),
                }


def _draw_cell(axis: "Axes", found: Found, cell: Cell) -> None:
    """Both phases in one panel, the critics of the last on a scale of their own."""
    axis.tick_params(labelsize=6, pad=1)
    axis.locator_params(nbins=4)
    curves = {phase: found.curves[phase, cell] for phase in found.phases if (phase, cell) in found.curves}
    if not curves:
        said, _ = found.absence(found.last, cell)
        cross_out(axis, (0.0, 0.0, 1.0, 1.0), said, transform=axis.transAxes)
        axis.set(xticks=[], yticks=[])
        plain(axis)
        return
    for phase, points in curves.items():
        _draw_band(axis, points, "student_loss", LOOKS[phase])
    beside = axis.twinx()
    without_grid(beside, "both")
    beside.tick_params(labelsize=6, pad=1, length=0, labelcolor="#946600")
    beside.locator_params(axis="y", nbins=4)
    _draw_band(beside, curves[list(curves)[-1]], "critic_loss", CRITICS)
    for one in (axis, beside):
        one.yaxis.set_major_formatter("{x:g}")
    axis.set_zorder(beside.get_zorder() + 1)  # the student above its critics
    axis.patch.set_visible(False)
    axis.margins(x=0)


def _draw_band(axis: "Axes", points: Iterable[CurvePoint], name: str, look: dict[str, Any]) -> None:
    """Mean and range over seeds at each step; no scale where it was never reported."""
    values = _by_step(points, name)
    if not values:
        axis.set_yticks([])
        return
    steps = list(values)
    low, high = ([end(values[step]) for step in steps] for end in (min, max))
    axis.fill_between(steps, low, high, color=look["color"], alpha=0.22, linewidth=0)
    axis.plot(steps, [float(np.mean(values[step])) for step in steps], **look)


def _by_step(points: Iterable[CurvePoint], name: str) -> dict[int, list[float]]:
    """Values over seeds of each step at which it was reported, in their order."""
    values: dict[int, list[float]] = {}
    for point in points:
        value = vars(point)[name]
        if value is not None:
            values.setdefault(point.step, []).append(value)
    return dict(sorted(values.items()))


def read_clips(reports: Path, found: Found) -> dict[Cell, np.ndarray]:
    """uint8 (N, T, C, H, W) of every measured cell and every start that samples.npz has.

    Raises:
        DamagedRecordError: samples.npz is missing, damaged, or lacks a measured cell.
    """
    path = reports / "grid" / "samples.npz"
    cells = {cell: "-".join(cell) for phase in (START, *COMPARED) for cell in found.means.get(phase, {})}
    with reading(path), np.load(path) as arrays:
        absent = [key for key in cells.values() if key not in arrays]
        if absent:
            raise ValueError(f"it lacks {', '.join(absent)}")
        clips = {}
        for cell, key in cells.items():
            shown = arrays[key]
            if shown.ndim != 5 or shown.dtype != np.uint8 or shown.shape[2] not in (1, 3) or len(shown) == 0:
                raise ValueError(f"{key} must be uint8 (N, T, C, H, W), C 1 or 3, got {shown.dtype} {shown.shape}")
            clips[cell] = shown
    return clips


def draw_clips(found: Found, study: Study, clips: dict[Cell, np.ndarray], path: Path) -> Path:
    """Losses down and methods across, first what each method starts from: clips, frame by frame."""
    num_frames = lookup(study.checkpoints[0].measured, "work.num_frames")
    rows = [START, *found.losses]
    figure = new_figure(WIDE, 0.35 + 0.62 * len(rows))
    axes = figure.subplots(len(rows), len(found.methods), squeeze=False)
    for line, loss in zip(axes, rows, strict=True):
        for axis, method in zip(line, found.methods, strict=True):
            axis.set(xticks=[], yticks=[])
            plain(axis)
            cell = Cell(method, loss)
            if cell in clips:
                pixels = strip(clips[cell][:NUM_SHOWN, :num_frames])
                axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="none")
            else:
                said, _ = found.absence(found.last, cell)
                cross_out(axis, (0.0, 0.0, 1.0, 1.0), said, transform=axis.transAxes)
        line[0].set_ylabel("\n".join(lines_of(loss)), fontsize=LOSS_POINTS, weight="bold")
        line[0].yaxis.label.set(rotation=0, ha="right", va="center")
    for axis, method in zip(axes[0], found.methods, strict=True):
        axis.set_title(method.replace("_", " "), fontsize=9, loc="center")
    figure.align_ylabels(axes[:, 0])
    return save(figure, path, study, list(_clip_rows(found, clips, num_frames)))


def _clip_rows(found: Found, clips: dict[Cell, np.ndarray], num_frames: int) -> Iterator[dict[str, Any]]:
    """A row a clip: where it lies in samples.npz, and the mean excess FVD of its cell."""
    for cell, shown in clips.items():
        phase = next(phase for phase in (TUNED, DEFAULT, START) if cell in found.means.get(phase, {}))
        for clip in range(min(NUM_SHOWN, len(shown))):
            yield {
                **cell._asdict(),
                "phase": phase,
                "clip": clip,
                "first_frame": 1,
                "last_frame": min(num_frames, shown.shape[1]),
                "excess_fvd": found.means[phase][cell][EXCESS].mean,
            }
