"""The table of a sweep, tuned and untuned: every metric with its interval, the setting, and what it cost."""

from collections.abc import Callable
from html import escape
from statistics import mean

from pipeline.grid import Cell
from pipeline.reporting.columns import COLUMNS, NOTHING, Column
from pipeline.reporting.markup import cell as td
from pipeline.reporting.markup import row_head, table
from pipeline.reporting.read import TIMES
from pipeline.reporting.sweep_csv import MeanRow, TrialRow
from pipeline.reporting.sweep_read import (
    DONE,
    EXCESS,
    START,
    TUNED,
    Found,
    bounds,
    interval,
    name_of,
)
from pipeline.reporting.sweep_tables import Place, text_table
from pipeline.reporting.tables import best_rows

MEASURES: dict[str, Column] = {  # by their names in cells.csv
    **{name: COLUMNS[name] for name in ("excess", "fvd")},
    "first_to_second": COLUMNS["agreement_second"],
    "first_to_last": COLUMNS["agreement_last"],
    **{name: COLUMNS[name] for name in ("precision", "recall", "coverage", "drift_slope", "calls_per_frame")},
}
COSTS: dict[
    str, tuple[str, str]
] = {  # title, and how it is written: of one training and of sampling, means over seeds
    "student_updates": ("updates", ",.0f"),
    "critic_updates": ("critics", ",.0f"),
    "tflop": ("TFLOP", ",.1f"),
    "seconds": ("seconds", ",.0f"),
    "calls_per_frame": (COLUMNS["calls_per_frame"].title, ",.1f"),
    "latency_ms": (COLUMNS["latency_s"].title, ",.1f"),
    "frames_per_s": (COLUMNS["frames_per_s"].title, ",.0f"),
}
IN_TEXT = (EXCESS, "first_to_last", "coverage")
TEXT_COSTS = ("tflop", "seconds")
NUM_LEFT = 2  # columns of words: method, loss


def cells_of(found: Found, phase: str) -> list[Cell]:
    """In the order of the grid."""
    return [cell for cell in found.cells if cell in found.means.get(phase, {})]


def shown(row: MeanRow | None, column: Column, *, join: Callable[[str, str], str]) -> str:
    """A mean and its interval as the column writes numbers."""
    if row is None:
        return NOTHING
    ends = bounds(row)
    value = column.shown(row.mean)
    return join(value, f"[{column.shown(ends[0])}, {column.shown(ends[1])}]") if ends else value


def setting_words(trial: TrialRow | None) -> str:
    """What the search chose: the student's learning rate, the factor on those of the critics, their updates."""
    if trial is None:
        return NOTHING
    parts = [f"rate {trial.learning_rate:.2g}"] if trial.learning_rate is not None else []
    if trial.critic_rate_factor is not None:
        parts.append(f"critics {TIMES}{trial.critic_rate_factor:.2g}")
    if trial.critic_updates_a_step is not None:
        parts.append(f"{trial.critic_updates_a_step:.0f} a step")
    return ", ".join(parts) or NOTHING


def cost_of(found: Found, phase: str, cell: Cell, name: str) -> float | None:
    """Of one training or of sampling, the mean over its seeds."""
    values = [
        value
        for trial in found.trials
        if (trial.cell, trial.phase, trial.status) == (cell, phase, DONE)
        and (value := vars(trial)[name]) is not None
    ]
    return mean(values) if values else None


def table_of(found: Found, phase: str, caption: str, *, with_starts: bool) -> str:
    """A row a cell, the best of a column marked; above them what each method starts from."""
    cells = cells_of(found, phase)
    starts = [Cell(m, START) for m in found.methods if Cell(m, START) in found.means.get(START, {})]
    best = _best(found, phase, cells, MEASURES)
    rows = []
    for cell in (*(starts if with_starts else ()), *cells):
        is_start = cell.loss == START
        rows_of = found.means[START if is_start else phase][cell]
        line = [row_head(name_of(cell)), td(str(rows_of[EXCESS].num_seeds))]
        for name, column in MEASURES.items():
            said = shown(rows_of.get(name), column, join=lambda value, ends: f"{value}<br><small>{ends}</small>")
            line.append(td(said, "best" if (cell, name) in best else ""))
        rows.append((' class="reference"' if is_start else "", line))
    heads = ["cell", "seeds", *(column.title for column in MEASURES.values())]
    return table([escape(head) for head in heads], rows, caption=caption)


def cost_table(found: Found, phase: str, caption: str) -> str:
    """A row a cell: its setting, where it was tuned, and what one training and sampling cost."""
    rows = []
    for cell in found.cells:
        line = [row_head(name_of(cell))]
        line += [td(escape(setting_words(found.setting(phase, cell))))] * (phase == TUNED)
        line += [td(_cost_shown(found, phase, cell, name)) for name in COSTS]
        rows.append(("", line))
    heads = ["cell", *["setting"] * (phase == TUNED), *(title for title, _ in COSTS.values())]
    return table([escape(head) for head in heads], rows, caption=caption)


def _cost_shown(found: Found, phase: str, cell: Cell, name: str) -> str:
    value = cost_of(found, phase, cell, name)
    return NOTHING if value is None else format(value, COSTS[name][1])


def _best(found: Found, phase: str, cells: list[Cell], measures: dict[str, Column]) -> set[tuple[Cell, str]]:
    """Cell and metric of the best values of every column."""
    places = set()
    for name, column in measures.items():
        rows = [found.means[phase][cell].get(name) for cell in cells]
        values = [row.mean if row else None for row in rows]
        places |= {(cells[index], name) for index in best_rows(values, column.better)}
    return places


def text_of(found: Found, phase: str) -> str:
    """The same for a terminal of 120 columns, by fewer metrics."""
    cells = cells_of(found, phase)
    measures = {name: MEASURES[name] for name in IN_TEXT}
    lines = [["method", "loss", "seeds", *(column.title for column in measures.values())]]
    lines[0] += ["setting"] * (phase == TUNED) + [COSTS[name][0] for name in TEXT_COSTS]
    for cell in cells:
        rows = found.means[phase][cell]
        line = [*(word.replace("_", " ") for word in cell), str(rows[EXCESS].num_seeds)]
        line.append(interval(rows[EXCESS], rows[EXCESS].mean))
        line += [shown(rows.get(name), measures[name], join=lambda value, _: value) for name in IN_TEXT[1:]]
        line += [setting_words(found.setting(phase, cell))] * (phase == TUNED)
        line += [_cost_shown(found, phase, cell, name) for name in TEXT_COSTS]
        lines.append(line)
    places: set[Place] = {
        (cells.index(cell), 3 + IN_TEXT.index(name)) for cell, name in _best(found, phase, cells, measures)
    }
    return text_table(lines, num_left=NUM_LEFT, best=places)
