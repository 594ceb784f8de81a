"""Training curves of every unit as small multiples."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pipeline.records import Record
from pipeline.reporting.read import Study
from pipeline.reporting.style import INK, WIDE, colours, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_COLUMNS = 4
FIRST = ("student_loss", "grad_norm", "critic_loss", "critic_grad_norm")  # so that like stands above like
STEEP = 20  # a peak so many times the median asks for a logarithmic axis
SPAN = 20  # so many windows, one after another, would fill the curve: each point of the smooth line averages one


def draw_training(study: Study, path: Path) -> Path:
    """A row a unit, a panel a metric: every value faint, their running mean bold."""
    trained = [record for record in study.records if record.curve]
    rows = [(record, names) for record in trained for names in _rows_of(metrics_of(record))]
    shades = colours(study)
    figure = new_figure(WIDE, 1.32 * max(1, len(rows)) + 0.4)
    axes = figure.subplots(max(1, len(rows)), NUM_COLUMNS, squeeze=False)
    for line, (record, names) in zip(axes, rows, strict=False):
        for axis, name in zip(line, names, strict=False):
            _draw_curve(axis, record, name, shades.get(record.name, INK))
        if names[0] == metrics_of(record)[0]:
            line[0].set_ylabel(record.name.replace("@", "\n"), fontweight="bold", fontsize=8)
    for line, names in zip(axes, [names for _, names in rows] or [[]], strict=True):
        for axis in line[len(names) :]:
            axis.set_visible(False)
    figure.supxlabel("step", fontsize=9)
    return save(figure, path, study, list(_values(trained)))


def _values(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """A row a value of a curve."""
    for record in records:
        for name in metrics_of(record):
            steps, values, smooth = _smoothed(record, name)
            for step, value, mean in zip(steps, values, smooth, strict=True):
                yield {
                    "stage": record.name,
                    "metric": name,
                    "step": int(step),
                    "value": value,
                    "running_mean": mean,
                }


def _smoothed(record: Record, name: str) -> tuple[list[float], list[float], list[float]]:
    """Steps, values, and the running mean of the values."""
    import pandas as pd

    rows = [row for row in record.curve if name in row]
    values = [row[name] for row in rows]
    smooth = pd.Series(values).rolling(max(1, len(rows) // SPAN), center=True, min_periods=1).mean()
    return [row["step"] for row in rows], values, smooth.tolist()


def metrics_of(record: Record) -> list[str]:
    """The columns of its curve: losses of the student first."""
    names = dict.fromkeys(name for row in record.curve for name in row if name != "step")
    return [*(name for name in FIRST if name in names), *(name for name in names if name not in FIRST)]


def _rows_of(names: list[str]) -> list[list[str]]:
    return [names[start : start + NUM_COLUMNS] for start in range(0, len(names), NUM_COLUMNS)]


def _draw_curve(axis: "Axes", record: Record, name: str, colour: str) -> None:
    steps, values, smooth = _smoothed(record, name)
    axis.plot(steps, values, color=colour, linewidth=0.6, alpha=0.35)
    axis.plot(steps, smooth, color=colour, linewidth=1.5)
    axis.set_title(name.replace("_", " "), fontsize=8, fontweight="normal")
    axis.tick_params(labelsize=7)
    axis.margins(x=0)
    axis.locator_params(axis="x", nbins=4)
    if min(values) > 0 and max(values) > STEEP * median(values):
        axis.set_yscale("log")
