"""Every cell of the grid at a glance: where it ends by derivation, and how far from there it did; HTML."""

from collections.abc import Sequence
from html import escape

from pipeline.grid import Cell, cells
from pipeline.laboratory.verdicts import Judgement, Verdict, over_processes
from pipeline.methods import METHODS
from pipeline.reporting.columns import NOTHING
from pipeline.reporting.laboratory import answers, words
from pipeline.reporting.laboratory.brief import labelled, listed, pill
from pipeline.reporting.laboratory.results import EXACT, LEARNED, Judged, Laboratory
from pipeline.reporting.markup import table, warned
from pipeline.reporting.read import TIMES

HEADS = ("cell", "by derivation it minimises", "did it", "away", "away, learned critics", "rarest mode")
CAPTION = """{method}: where every cell ends by derivation, and how far from there it did: the largest difference
of a parameter, by process, mean over {seeds}, with exact critics but where it says otherwise. Rarest mode: times
the share that data have of it, on all processes of several modes."""


def grid_tables(found: Laboratory) -> list[str]:
    """A table a method, a row a cell as the parameters set it; and which cells of the grid there are not."""
    tables = []
    for method in METHODS:
        names = [name for name in found.params["cells"] if found.place(name).method == method]
        rows = [("", _row(found, name)) for name in names if _rows(found, name)]
        if rows:
            said = CAPTION.format(method=method.replace("_", " ").capitalize(), seeds=found.seeds)
            tables.append(table(HEADS, rows, caption=warned(found.warning, escape(said)), kind="wordy"))
    return [*tables, *_missing(found)]


def _rows(found: Laboratory, name: str) -> list[Judged]:
    return [row for row in found.judged if row.cell == name]


def _row(found: Laboratory, name: str) -> list[str]:
    rows = _rows(found, name)
    exact = [row for row in rows if row.critics == EXACT]
    judged = {
        row.process: Judgement(Verdict(row.derived_verdict), row.derived_reason) for row in exact if row.derived
    }
    objectives = list(dict.fromkeys(row.derived for row in rows if row.derived))
    contents = (
        listed([escape(words.objective(one)) for one in objectives]) if objectives else NOTHING,
        pill(over_processes(judged).verdict.value) if judged else NOTHING,
        _distances(found, exact),
        _distances(found, [row for row in rows if row.critics == LEARNED]),
        f"{answers.span(kept)} &times;" if (kept := answers.ratios(found, exact)) else NOTHING,
    )
    settings = words.settings(found, name)
    return labelled(f"{words.cell(name)}{f' ({settings})' if settings else ''}", HEADS, contents)


def _distances(found: Laboratory, rows: Sequence[Judged]) -> str:
    """By process; beyond the tolerance they stand out."""
    said = []
    for row in rows:
        away = found.away(row, row.derived) if row.derived else None
        if away is not None:
            number = f"{row.process}&nbsp;{away:.3f}"
            said.append(number if away <= found.rules.within(row.critics) else f"<strong>{number}</strong>")
    return ", ".join(said) or NOTHING


def _missing(found: Laboratory) -> list[str]:
    """The cells of the grid without a measurement, and those that cannot be."""
    measured = {found.place(row.cell) for row in found.judged}
    excluded = [f"{_named(one)}: {escape(one.excluded)}" for one in cells() if one.excluded]
    silent = [_named(one) for one in cells() if not one.excluded and one not in measured]
    return [
        f"<p>Not in the grid:</p>{listed(excluded)}",
        f"<p>Not measured: {', '.join(silent)}.</p>" if silent else "<p>Every other cell was measured.</p>",
    ]


def _named(cell: Cell) -> str:
    return f"{cell.method.replace('_', ' ')} {TIMES} {words.loss(cell.loss)}"
