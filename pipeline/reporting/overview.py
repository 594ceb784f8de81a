"""The picture of the whole comparison: clips of every checkpoint under real ones, and two numbers beside them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.reporting.columns import COLUMNS
from pipeline.reporting.read import Study, lookup
from pipeline.reporting.samples import read_samples, strip
from pipeline.reporting.style import FAINT, FLOOR, INK, colours, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_CLIPS = 2
# Inches.
WIDTH, ROW, HEAD, HEAD_WARNED, FOOT = 10.0, 0.39, 0.36, 0.66, 0.06
NAMES, CLIPS, BARS, SPACE = 1.72, 5.1, 0.95, 0.22  # from left to right


def draw_overview(study: Study, path: Path) -> Path:
    """A row a checkpoint: its name, two clips, its excess FVD, and how often the digit stays the same."""
    num_frames = lookup(study.checkpoints[0].measured, "work.num_frames")
    shades = colours(study)
    samples = [read_samples(checkpoint) for checkpoint in study.checkpoints]
    rows = [("real clips", "held-out digits", samples[0].real)]
    for checkpoint, kept in zip(study.checkpoints, samples, strict=True):
        rows.append((checkpoint.label, checkpoint.name, kept.generated))
    head = HEAD_WARNED if study.warning else HEAD
    height = head + ROW * len(rows) + FOOT
    figure = new_figure(WIDTH, height)
    figure.set_layout_engine("none")
    for index, (label, name, clips) in enumerate(rows):
        bottom = height - head - ROW * (index + 1)
        _text(figure, 0.12, bottom + 0.64 * ROW, label, color=INK, fontsize=9.5, fontweight="bold")
        _text(figure, 0.12, bottom + 0.26 * ROW, name, color=FAINT, fontsize=7.5)
        axis = figure.add_axes(_box(NAMES, bottom, CLIPS, ROW, height))
        _draw_clips(axis, clips[:NUM_CLIPS, :num_frames])
    left = NAMES + CLIPS + SPACE
    bars = [figure.add_axes(_box(x, FOOT, BARS, ROW * len(rows), height)) for x in (left, left + BARS + 3 * SPACE)]
    measured = [checkpoint.measured for checkpoint in study.checkpoints]
    tints = [FLOOR, *(shades[checkpoint.name] for checkpoint in study.checkpoints)]
    excess = [lookup(record, "metrics.fvd.excess") for record in measured]
    kept = [lookup(record, "metrics.identity.first_to_last") for record in measured]
    through_codec = lookup(measured[0], "metrics.identity.codec.first_to_last")
    _draw_bars(bars[0], [0.0, *excess], tints, ["0", *(COLUMNS["excess"].shown(value) for value in excess)])
    _draw_bars(bars[1], [through_codec, *kept], tints, [f"{value:.0%}" for value in (through_codec, *kept)])
    over = height - head + 0.12
    _text(figure, NAMES, over, f"two clips each, frames 1 to {num_frames}", color=FAINT, fontsize=8)
    _text(figure, left, over, "excess FVD", color=INK, fontsize=8.5, fontweight="bold")
    _text(
        figure,
        left + BARS + 3 * SPACE,
        over,
        f"digit kept 1→{num_frames}",
        color=INK,
        fontsize=8.5,
        fontweight="bold",
    )
    names = [name for _, name, _ in rows]
    numbers = zip(names, (0.0, *excess), (through_codec, *kept), strict=True)
    return save(figure, path, study, list(_shown(numbers, num_frames)))


def _shown(numbers: Iterable[tuple[str, float, float]], num_frames: int) -> Iterator[dict[str, Any]]:
    """A row a clip. numbers: whose clips, and beside them excess FVD and the share that keep their digit."""
    for name, excess, kept in numbers:
        for clip in range(NUM_CLIPS):
            frames = {"first_frame": 1, "last_frame": num_frames}
            yield {"clips_of": name, "clip": clip, **frames, "excess_fvd": excess, "digit_kept": kept}


def _box(
    left: float, bottom: float, width: float, height: float, total: float
) -> tuple[float, float, float, float]:
    """Inches as shares of the figure."""
    return left / WIDTH, bottom / total, width / WIDTH, height / total


def _text(figure: "Figure", left: float, bottom: float, text: str, **how: Any) -> None:
    figure.text(left / WIDTH, bottom / figure.get_figheight(), text, va="center", **how)


def _draw_clips(axis: "Axes", clips: np.ndarray) -> None:
    """Side by side in one row, half a frame of paper between two clips."""
    strips = [strip(clip[None]) for clip in clips]
    half = np.full((strips[0].shape[0], clips.shape[-1] // 2, strips[0].shape[-1]), 255, np.uint8)
    parts = [part for one in strips for part in (one, half)][:-1]
    axis.imshow(np.concatenate(parts, axis=1), cmap="gray", vmin=0, vmax=255, aspect="equal", interpolation="none")
    axis.set_anchor("W")
    axis.set_axis_off()


def _draw_bars(axis: "Axes", values: list[float], tints: list[str], texts: list[str]) -> None:
    """A bar a row, its number behind it, and no axis."""
    axis.barh(range(len(values)), values, color=tints, height=0.5)
    for row, (value, text) in enumerate(zip(values, texts, strict=True)):
        axis.annotate(text, (value, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5)
    axis.set_ylim(len(values) - 0.5, -0.5)
    axis.set_xlim(0, max(*values, 1e-9))
    axis.axvline(0, color=FLOOR, linewidth=1)
    axis.set_axis_off()
