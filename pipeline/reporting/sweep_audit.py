"""In what the cells of a sweep differ beside their names: a line a parameter and kind, not one a pair."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipeline.grid import Cell
from pipeline.reporting.read import short_name
from pipeline.reporting.sweep_csv import AuditRow
from pipeline.reporting.sweep_read import cell_of

KINDS = {  # in the order in which a reader must know them
    "confounds": "differs, and should not: pairs that differ in it are confounded",
    "budget": "what the budget makes of each cell",
    "tuned": "what the search chose",
    "follows": "follows from method or loss",
    "axis": "the axes themselves",
}
NOTHING_SAID = "not set"
MOST_LETTERS = 48  # of a value
MOST_VALUES = 6  # that are told
DIGEST, DIGEST_SHOWN = re.compile(r"[0-9a-f]{24,}"), 8  # letters of a checksum
CLASS = re.compile(r"pipeline(\.\w+)+")


@dataclass(frozen=True)
class Difference:
    """A parameter that differs between cells, the cells of each value, and how many pairs differ in it."""

    kind: str
    path: str
    values: dict[str, tuple[Cell, ...]]
    num_pairs: int

    @property
    def words(self) -> str:
        """For people: "muon for dmd, sid; adamw for gan"; of many values, how many."""
        if len(self.values) > MOST_VALUES:
            return f"{len(self.values)} values in {len({cell for of in self.values.values() for cell in of})} cells"
        groups = _grouped(self.values)
        return "; ".join(f"{_short(value)} for {names}" for value, names in groups.items())


def differences(audit: Iterable[AuditRow]) -> list[Difference]:
    """What the rows say, by kind and parameter.

    Raises:
        ValueError: a kind is unknown, or a row names no cell.
    """
    found: dict[tuple[str, str], list[AuditRow]] = {}
    for row in audit:
        if row.kind not in KINDS:
            raise ValueError(f"a kind must be one of {', '.join(KINDS)}, got {row.kind}")
        found.setdefault((row.kind, row.path), []).append(row)
    lines = []
    for (kind, path), rows in found.items():
        values: dict[str, dict[Cell, None]] = {}
        for row in rows:
            for key, value in ((row.a, row.value_a), (row.b, row.value_b)):
                values.setdefault(value, {})[cell_of(key)] = None
        lines.append(Difference(kind, path, {value: tuple(cells) for value, cells in values.items()}, len(rows)))
    return sorted(lines, key=lambda line: list(KINDS).index(line.kind))


def _grouped(values: dict[str, tuple[Cell, ...]]) -> dict[str, str]:
    """The cells of each value by their losses or methods alone, where those decide; else by their short names."""
    by_axis: tuple[Callable[[Cell], str], ...] = (lambda cell: cell.loss, lambda cell: cell.method)
    for of in by_axis:
        names = {value: dict.fromkeys(map(of, cells)) for value, cells in values.items()}
        if len({name for one in names.values() for name in one}) == sum(map(len, names.values())):
            return {value: ", ".join(one).replace("_", " ") for value, one in names.items()}
    return {value: ", ".join(map(short_name, cells)) for value, cells in values.items()}


def _short(value: str) -> str:
    """Of a checksum the beginning, of a class its name, of anything long the end."""
    if DIGEST.fullmatch(value):
        return value[:DIGEST_SHOWN]
    said = value.rpartition(".")[2] if CLASS.fullmatch(value) else value or NOTHING_SAID
    return said if len(said) <= MOST_LETTERS else f"…{said[-MOST_LETTERS:]}"
