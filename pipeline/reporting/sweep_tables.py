"""What the sections of sweeps share: tables read as rows, what must be said before them, and how they are shown."""

import contextlib
import csv
import dataclasses
import zipfile
from collections.abc import Collection, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipeline.records import DamagedRecordError
from pipeline.reporting.markup import cell, row_head, table
from pipeline.reporting.read import Study, artifact_digest

BEST = "*"
Lines = Sequence[Sequence[str]]  # of heads, then of each row
Place = tuple[int, int]  # row, column of a table's body


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raises DamagedRecordError that names the file, for whatever goes wrong with it inside."""
    try:
        yield
    except OSError as error:
        raise DamagedRecordError(f"{path} cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise DamagedRecordError(f"{path} is damaged: it lacks {error}") from error
    except (ValueError, TypeError, zipfile.BadZipFile) as error:
        raise DamagedRecordError(f"{path} is damaged: {error}") from error


def read_rows(path: Path, kind: type, *, may_be_empty: bool = False) -> list[Any]:
    """The rows of a CSV as `kind`, whose fields are words, counts or numbers; an empty number is None.

    Raises:
        DamagedRecordError: the file is missing, empty (unless it may be), or a row is not of that kind.
    """
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    rows = []
    with reading(path), path.open(newline="") as file:
        for row in csv.DictReader(file, strict=True):
            values: dict[str, Any] = {}
            for name, of in fields.items():
                text = row[name]
                values[name] = text if of is str else int(text) if of is int else _number(text, of)
            rows.append(kind(**values))
        if not rows and not may_be_empty:
            raise ValueError("it has no lines")
    return rows


def _number(text: str, kind: Any) -> float | None:
    return None if text == "" and kind is not float else float(text)


def notices(study: Study, *, codec: str, profile: str, who: str, command: str) -> list[str]:
    """What a reader must know of a sweep that another codec or profile made than that of the page."""
    lines = []
    if codec != artifact_digest(study.stage("codec")):
        lines.append(f"{who} speak the latents of another codec than that of this run: {command}")
    if profile != study.profile:
        lines.append(f"{who} are of profile {profile}, this page is of {study.profile}")
    return lines


def html_table(
    lines: Lines, caption: str, *, best: Collection[Place] = (), references: Collection[int] = ()
) -> str:
    """The first cell of a line heads it. references: rows that are there for scale."""
    heads, *body = lines
    rows = []
    for number, (first, *rest) in enumerate(body):
        marked = (cell(escape(text), "best" if (number, 1 + k) in best else "") for k, text in enumerate(rest))
        rows.append((' class="reference"' if number in references else "", [row_head(first), *marked]))
    return table([escape(head) for head in heads], rows, caption=caption)


def text_table(lines: Lines, *, num_left: int, best: Collection[Place] = ()) -> str:
    """Aligned for a terminal: so many columns to the left, the others to the right, the best values starred."""
    heads, *body = lines
    starred_columns = {column for _, column in best}  # digits stand below digits: others have a space for the star
    shown = [heads]
    for number, line in enumerate(body):
        marks = (BEST if (number, k) in best else " " * (k in starred_columns) for k in range(len(line)))
        shown.append([text + mark for text, mark in zip(line, marks, strict=True)])
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    gap = " " if best else "  "
    return "\n".join(
        gap.join(
            text.ljust(width) if column < num_left else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in shown
    )
