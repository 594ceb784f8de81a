"""The picture that the report opens with: method by loss, what each cell reached, is said to minimise, and does."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.grid import Cell
from pipeline.reporting.laboratory.answers import minimised
from pipeline.reporting.laboratory.brief import MARKS, ClaimOfCell, claims_of
from pipeline.reporting.laboratory.results import EXACT, Judged, Laboratory
from pipeline.reporting.laboratory.words import objective
from pipeline.reporting.read import Study
from pipeline.reporting.style import FAINT, WIDE, new_figure, save
from pipeline.reporting.sweep_figures import (
    FRAME,
    TITLES,
    clipped,
    cross_out,
    ink_on,
    lines_of,
    plain,
    room_of,
    scale_of,
    seeds_and_clips,
    shades_of_excess,
)
from pipeline.reporting.sweep_read import START, Found, bounds, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SWITCHES = {  # the settings that decide what a cell minimises, by the name of its method or loss, and their axis
    "self_forcing": ("method", ("detach_context",)),
    "l2": ("loss", ("weighting",)),
    "dmd": ("loss", ("space", "level_max", "guidance", "entropy_weight", "regression_weight")),
    "gan": ("loss", ("objective", "level_max")),
    "sid": ("loss", ("alpha", "level_max")),
    "f_distill": ("loss", ("f_divergence", "space", "level_max")),
    "add": ("loss", ("level_weight", "gan_weight", "level_max")),
    "pagoda": ("loss", ("gan_weight",)),
}
AXES = {"method": "methods", "loss": "losses"}  # of the sweep's parameters
UNMEASURED = "not measured in the laboratory"
HARD = "\u00a0"  # a space at which no line ends
LINE_LEN, MOST_LINES = 40, 4  # letters of a line, and lines of what a cell minimises
FIELD, HEAD, WARNED = 0.94, 0.62, 0.3  # inches: a row, above the rows, and for a warning
LOSS_POINTS = 8.5  # of the names of losses


@dataclass(frozen=True)
class Measured:
    """What the laboratory found of a cell, set as in the sweep. claim: what was said of it; None: nothing."""

    claim: ClaimOfCell | None
    minimises: tuple[str, ...]  # where its students settled; empty where they were not measured
    rows: tuple[Judged, ...]  # of its verdicts, those behind that


def measured_of(found: Found, laboratory: Laboratory, cell: Cell) -> Measured:
    """By the cells of the laboratory that agree with the sweep in what decides the divergence."""
    for claim in claims_of(laboratory, cell):
        alike = {name for name in claim.cells if _is_set_alike(found, laboratory, cell, name)}
        rows = [row for row in laboratory.judged if row.critics == EXACT and row.cell in alike]
        if rows:
            return Measured(claim if claim.claimed else None, tuple(minimised(laboratory, rows)), tuple(rows))
    return Measured(None, (), ())


def _is_set_alike(found: Found, laboratory: Laboratory, cell: Cell, name: str) -> bool:
    """Whether a cell of the laboratory, by its name, has the switches of the sweep."""
    for entry in cell:
        axis, switches = SWITCHES.get(entry, ("", ()))
        for switch in switches:
            if laboratory.params["cells"][name][axis][switch] != found.grid[AXES[axis]][entry][switch]:
                return False
    return True


def said_of(cell: Cell, one: Measured) -> str:
    """What the sources say; the verdicts on it as the post's table has it, of clean clips, and by its text."""
    if one.claim is None:
        return f"said: {cell.divergence}"
    table, text = (MARKS[verdict] for verdict in (one.claim.by_table, one.claim.by_text))
    if one.claim.claimed == objective("none"):
        return f"said: {one.claim.claimed}{HARD}{text}"
    return f"said: {one.claim.claimed}{HARD}{table}, averaged over noise{HARD}{text}"


def found_of(one: Measured) -> str:
    """Where the students of the laboratory settled."""
    return f"found: {'; '.join(one.minimises)}" if one.minimises else UNMEASURED


def draw_matrix(found: Found, laboratory: Laboratory | None, study: Study, path: Path) -> Path:
    """Losses down, methods across: mean excess FVD with its interval over seeds, the claim, what was measured."""
    phase, best = found.last, found.by_excess(found.last)[0]
    left = room_of(found.losses, LOSS_POINTS)
    head = HEAD + (WARNED if study.warning else 0.0)
    figure = new_figure(WIDE, head + FIELD * len(found.losses))
    figure.set_layout_engine("none")
    height = figure.get_figheight()
    axis = figure.add_axes((left / WIDE, 0.01, 0.995 - left / WIDE, 1 - head / height - 0.01))
    axis.set(xlim=(0, len(found.methods)), ylim=(len(found.losses), 0), xticks=[], yticks=[])
    plain(axis)
    scale, shades, data = scale_of(found), shades_of_excess(), []
    for row, loss in enumerate(found.losses):
        name = "\n".join(lines_of(loss))
        axis.text(-0.03, row + 0.5, name, ha="right", va="center", fontsize=LOSS_POINTS, weight="bold")
        for column, method in enumerate(found.methods):
            cell = Cell(method, loss)
            one = measured_of(found, laboratory, cell) if laboratory else None
            measured = found.excess(phase, cell)
            if measured is None:
                said, reason = found.absence(phase, cell)
                _leave_out(axis, (column, row), said, reason)
            else:
                shade = shades(scale(clipped(measured)))
                _fill(axis, (column, row), interval(measured, measured.mean), shade, is_best=cell == best)
                lines = [f"said: {cell.divergence}"] if one is None else [said_of(cell, one), found_of(one)]
                _write(axis, (column, row), lines, ink_on(shade))
            data.append(_row(found, cell, one))
    for column, method in enumerate(found.methods):
        start = found.excess(START, Cell(method, START))
        begun = f"starts at {start.mean:.1f}" if start else ""
        axis.text(column + 0.5, -0.16, method.replace("_", " "), ha="center", fontsize=9, weight="bold")
        axis.text(column + 0.5, -0.04, begun, ha="center", fontsize=7, color=FAINT)
    title = f"Excess FVD, {TITLES[phase].lower()}: {seeds_and_clips(found, phase)}; lower, and darker, is better"
    figure.text(left / WIDE, 1 - (head - HEAD + 0.2) / height, title, fontsize=8.5, weight="bold")
    return save(figure, path, study, data)


def _fill(axis: "Axes", corner: tuple[int, int], number: str, shade: Any, *, is_best: bool) -> None:
    from matplotlib.patches import Rectangle

    (x, y), (mean, _, ends) = corner, number.partition(" ")
    frame: dict[str, Any] = {"edgecolor": FRAME, "linewidth": 2.6} if is_best else {"linewidth": 0}
    axis.add_patch(Rectangle((x + 0.012, y + 0.02), 0.976, 0.96, facecolor=shade, **frame))
    axis.text(x + 0.04, y + 0.24, mean, fontsize=12.5, weight="bold", color=ink_on(shade))
    axis.text(x + 0.05 + 0.056 * len(mean), y + 0.235, ends, fontsize=7, color=ink_on(shade))


def _write(axis: "Axes", corner: tuple[int, int], lines: list[str], ink: str) -> None:
    """The claim above what was found, each in as many lines as it needs."""
    wrapped = [textwrap.wrap(line, LINE_LEN, max_lines=MOST_LINES, placeholder=" …") for line in lines]
    text = "\n".join("\n".join(line) for line in wrapped)
    axis.text(corner[0] + 0.04, corner[1] + 0.34, text, fontsize=6.4, va="top", color=ink, linespacing=1.25)


def _leave_out(axis: "Axes", corner: tuple[int, int], said: str, reason: str) -> None:
    lines = textwrap.fill(reason, LINE_LEN - 6, max_lines=MOST_LINES, placeholder=" …")
    cross_out(axis, (corner[0] + 0.012, corner[1] + 0.02, 0.976, 0.96), said, lines)


def _row(found: Found, cell: Cell, one: Measured | None) -> dict[str, Any]:
    """Of the data beside the picture; a cell without a number says why."""
    measured = found.excess(found.last, cell)
    ends = bounds(measured) if measured else None
    claim = one.claim if one else None
    status, reason = ("measured", "") if measured else found.absence(found.last, cell)
    return {
        **cell._asdict(),
        "phase": found.last,
        "excess": measured.mean if measured else None,
        "low": ends[0] if ends else None,
        "high": ends[1] if ends else None,
        "num_seeds": measured.num_seeds if measured else 0,
        "num_clips": found.num_clips,
        "status": status,
        "reason": reason,
        "claimed": claim.claimed if claim else cell.divergence,
        "verdict_of_table": claim.by_table if claim else None,
        "verdict_of_text": claim.by_text if claim else None,
        "minimises": "; ".join(one.minimises) if one else None,
    }
