"""The section "Exact likelihood": clips whose data have a known density, read out and measured by it."""

from pathlib import Path
from typing import Any

from pipeline.reporting.columns import NOTHING
from pipeline.reporting.markup import picture, warned
from pipeline.reporting.read import Study
from pipeline.reporting.style import FAINT, INK, WIDE, colours, marker, new_figure, save, theme
from pipeline.reporting.sweep_tables import html_table

TITLE = "Exact likelihood"
METRIC = "known_density"
COMMAND = "python3 -m pipeline repro"
ABOUT = """<p>The process that draws these clips has a known density. Positions are read out of every frame; a clip
is read where each of its frames shows a blob and little else, and only those that are read have a density.</p>"""
CAPTION = """Mean ln q, in nats, of a frame after those before it, of the clips that are read, which are longer than
those of training. Below the line of real clips: moves that the data would hardly make. Above: moves with less noise
than theirs."""
TABLE_CAPTION = """ln q: mean log density of the read clips under the data, in nats, with its standard error.
Systems: mean posterior of each, beside its share in data."""


def known_density(study: Study, reports: Path) -> dict[str, list[str]]:
    """The section by its title; nothing where no checkpoint was measured by a known density."""
    found = {
        checkpoint.name: checkpoint.measured.metrics[METRIC]
        for checkpoint in study.checkpoints
        if METRIC in checkpoint.measured.metrics
    }
    if not found:
        return {}
    with theme():
        drawn = draw_by_frame(found, study, reports / "figures" / "known_density.svg")
    lines = table_lines(found)
    return {
        TITLE: [
            ABOUT,
            html_table(
                lines, warned(study.warning, TABLE_CAPTION), references=range(len(lines) - 3, len(lines) - 1)
            ),
            picture(drawn, warned(study.warning, CAPTION), command=COMMAND),
        ]
    }


def table_lines(found: dict[str, dict[str, Any]]) -> list[list[str]]:
    """A line of heads, one a checkpoint, then real clips, and real clips through the codec."""
    first = next(iter(found.values()))
    systems = [f"{name} ({share:.2f})" for name, share in first["data_shares"].items()]
    sets = {**{name: one["generated"] for name, one in found.items()}, "real clips": first["real"]}
    sets["real, through codec"] = first["codec"]
    return [["", "read", "ln q", *systems], *([name, *_cells(measured)] for name, measured in sets.items())]


def _cells(measured: dict[str, Any]) -> list[str]:
    value, error = measured["log_density"], measured["standard_error"]
    density = NOTHING if value is None or error is None else f"{value:.2f} ± {error:.2f}"
    shares = [NOTHING if share is None else f"{share:.2f}" for share in measured["system_shares"].values()]
    return [f"{measured['read_share']:.0%}", density, *shares]


def draw_by_frame(found: dict[str, dict[str, Any]], study: Study, path: Path) -> Path:
    """A line a checkpoint, and that of real clips."""
    figure = new_figure(WIDE, 3.4)
    axis = figure.add_subplot()
    shades = colours(study)
    rows: list[dict[str, Any]] = []
    for checkpoint in study.checkpoints:
        if checkpoint.name in found:
            frames = found[checkpoint.name]["frames"]
            values = [float("nan") if value is None else value for value in frames["log_density"]]
            look = {"color": shades[checkpoint.name], "marker": marker(study, checkpoint), "markersize": 4}
            axis.plot(frames["index"], values, label=checkpoint.label, **look)
            rows += _points(checkpoint.name, frames["index"], frames["log_density"])
    frames = next(iter(found.values()))["frames"]
    real = [float("nan") if value is None else value for value in frames["log_density_real"]]
    axis.plot(frames["index"], real, color=INK, linestyle=(0, (2, 2)), label="real clips")
    axis.set_yscale("symlog", linthresh=5.0)
    axis.set_xlabel("frame")
    axis.set_ylabel("ln q of the frame, nats")
    figure.legend(loc="outside right upper", labelcolor=INK, edgecolor=FAINT)
    rows += _points("real clips", frames["index"], frames["log_density_real"])
    return save(figure, path, study, rows)


def _points(name: str, frames: list[int], densities: list[float | None]) -> list[dict[str, Any]]:
    """A row a point of a line."""
    return [
        {"clips_of": name, "frame": frame, "log_density_nats": density}
        for frame, density in zip(frames, densities, strict=True)
    ]
