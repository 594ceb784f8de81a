"""The table of the whole grid: a row a cell as it was set, with the distances that the files give."""

import csv
import re
from html import unescape

import pytest

from pipeline.grid import cells
from pipeline.reporting.laboratory.results import read_laboratory
from pipeline.reporting.laboratory.whole_grid import grid_tables
from pipeline.reporting.laboratory.words import loss
from tests.laboratory_files import ENDS, write_laboratory_files


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    directory = tmp_path_factory.mktemp("grid")
    write_laboratory_files(directory, ends={"bidirectional-dmd": {"A": (0.4, 0.9)}})
    return directory


@pytest.fixture(scope="module")
def shown(reports):
    return grid_tables(read_laboratory(reports))


def plain(html):
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def named(cell):
    return f"{cell.method.replace('_', ' ')} \u00d7 {loss(cell.loss)}"


def row_of(shown, words):
    """The cells of the row whose head begins with these words."""
    rows = [row for part in shown for row in re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL)]
    (found,) = (row for row in rows if plain(re.findall(r"<th.*?</th>", row, re.DOTALL)[0]).startswith(words))
    return re.findall(r"<td.*?</td>", found, re.DOTALL)


def test_every_measured_cell_has_a_row(shown):
    rows = re.findall(r'<th scope="row">', "".join(shown))
    assert len(rows) == len(ENDS)


def test_distances_are_those_of_the_files(reports, shown):
    def numbers(name):
        with (reports / "laboratory" / name).open(newline="") as file:
            return list(csv.DictReader(file))

    (optimum,) = (
        row
        for row in numbers("predicted.csv")
        if (row["process"], row["objective"], row["rank"]) == ("A", "reverse_kl_averaged", "0")
    )
    (judged,) = (
        row
        for row in numbers("verdicts.csv")
        if (row["cell"], row["process"], row["critics"]) == ("bidirectional-dmd", "A", "exact")
    )
    away = max(abs(float(optimum[name]) - float(judged[name])) for name in ("m", "s"))
    derived, verdict, exact, *_ = row_of(shown, "bidirectional \u00d7 DMD (")
    assert "noise-averaged reverse KL" in derived
    assert "refuted" in verdict
    assert f"<strong>A&nbsp;{away:.3f}</strong>" in exact  # beyond the tolerance


def test_what_is_no_cell_and_what_was_not_measured_is_said(reports, shown):
    said = plain("".join(shown[-2:]))
    for cell in cells():
        if cell.excluded:
            assert f"{named(cell)}: {cell.excluded}" in said
    found = read_laboratory(reports)
    measured = {found.place(row.cell) for row in found.judged}
    left_out = said.partition("Not measured:")[2].rstrip(".").split(", ")
    assert [one.strip() for one in left_out] == [
        named(cell) for cell in cells() if not cell.excluded and cell not in measured
    ]
