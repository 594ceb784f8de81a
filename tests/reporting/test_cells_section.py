"""The section of the whole grid: there where it was run, made of its numbers, and careful in what it claims."""

import csv
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from pipeline.grid import cells
from pipeline.losses import LOSSES
from pipeline.methods import METHODS
from pipeline.records import DamagedRecordError
from pipeline.reporting import sections
from pipeline.reporting.cells import (
    BETTER,
    OPEN,
    START,
    UNKNOWN,
    WORSE,
    CellRow,
    answer,
    as_text,
    best_places,
    lines_of,
    read_cells,
    table_rows,
    verdict,
)
from pipeline.reporting.cells_figures import read_clips
from pipeline.reporting.columns import NOTHING
from pipeline.reporting.every_cell import every_cell, warnings_of
from pipeline.reporting.read import TIMES, read_study
from pipeline.reporting.style import HUES
from tests.grid_files import (
    FAILED,
    PICTURES,
    grid_rows,
    write_cells,
)


def section_of(reports):
    return "\n".join(every_cell(read_study(reports), reports))


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_run):
    """reports/ with the whole grid."""
    reports = write_run(tmp_path_factory.mktemp("cells"))
    write_cells(reports)
    return reports


@pytest.fixture(scope="module")
def section(run):
    return section_of(run)


def test_the_section_holds_figures_table_and_command(run, section):
    assert section.count("<code>python3 -m pipeline every-cell</code>") == 1 + 3  # of the section and of figures
    assert section.count("<figure") == 3
    assert section.count("<table") == 1
    for name in PICTURES:
        assert (run / "figures" / name).stat().st_size > 10_000


def data_of(reports, name):
    """The rows that stand beside a figure."""
    for kind in ("svg", "png"):
        assert (reports / "figures" / f"{name}.{kind}").stat().st_size > 10_000
    with (reports / "figures" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_data_of_the_figures_are_the_numbers_of_the_grid(run, section):
    found = read_cells(run)
    fields = data_of(run, "cells")
    assert len(fields) == len(found.methods) * len(found.losses)
    shown = {(row["method"], row["loss"]): row for row in fields}
    for cell, row in found.trained.items():
        numbers = [shown[cell][name] for name in ("excess_fvd", "low", "high", "first_to_last", "start_excess_fvd")]
        start = found.starts[cell.method].excess
        assert numbers == [repr(x) for x in (row.excess, row.excess_low, row.excess_high, row.first_to_last, start)]
        assert shown[cell]["status"] == found.verdict(cell)
    absent = dict.fromkeys(found.excluded, "excluded") | dict.fromkeys(found.failed, "failed")
    assert {cell: shown[cell]["status"] for cell in absent} == absent
    assert len(data_of(run, "cells_curves")) == sum(map(len, found.curves.values()))
    clips = data_of(run, "cells_clips")
    assert [row["clip"] for row in clips] == ["0", "1"] * (len(found.trained) + len(found.starts))
    assert {row["last_frame"] for row in clips} == {"8"}  # as long as training clips
    assert {row["excess_fvd"] for row in clips if row["loss"] == START} == {
        repr(v.excess) for v in found.starts.values()
    }


def test_page_text_and_csv_show_the_same_numbers(run, section):
    found = read_cells(run)
    text = as_text(found)
    lines = re.findall(r"<tr.*?</tr>", unescape(section))
    shown = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in lines]
    with (run / "cells" / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(table_rows(found)) == len(list(cells())) - len(found.excluded) - 1 + len(METHODS)
    for row in rows:
        method, loss = row["method"].replace("_", " "), row["loss"].replace("_", " ")
        (line,) = (line for line in shown if line[:2] == [method, loss])
        excess = f"{float(row['excess']):.1f} [{float(row['excess_low']):.1f}, {float(row['excess_high']):.1f}]"
        kept = [f"{float(row[name]):.3f}" for name in ("first_to_second", "first_to_last", "coverage")]
        cost = [f"{int(row['critic_updates']):,}", f"{float(row['tflop']):,.1f}", f"{float(row['seconds']):,.0f}"]
        cost, asked = (["", "", ""], "") if loss == START else (cost, row["teacher"] or NOTHING)
        assert line == [method, loss, excess, line[3], *kept, *cost, asked]
        (words,) = (one for one in text.splitlines() if one.startswith(f"{method} ") and f" {loss} " in one)
        assert words.replace("*", " ").split() == " ".join(line[:-1]).split()


def test_text_fits_a_terminal_of_120_columns(run):
    table = as_text(read_cells(run)).split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 120


def test_the_best_of_each_column_is_marked_and_no_start_is(run):
    found = read_cells(run)
    rows, places, heads = table_rows(found), best_places(found), lines_of(found)[0]
    best = {heads[column]: rows[row] for row, column in places}
    assert best["excess FVD"] == found.best
    assert (found.best.method, found.best.loss, found.best.excess) == ("diffusion_forcing", "dmd", 4.9)
    assert best["TFLOP"].tflop == min(row.tflop for row in found.trained.values())
    assert best["1→last"].first_to_last == max(row.first_to_last for row in found.trained.values())
    assert all(rows[row].loss != START for row, _ in places)
    assert "4.9 [4.5, 5.3]*" in as_text(found)


def test_a_cell_is_better_or_worse_only_where_the_intervals_do_not_touch():
    start = CellRow("m", START, "", 16.0, 15.0, 17.0, 0.9, 0.8, 0.7, 0, 0, 0.0, 0.0)

    def judged(low, high):
        return verdict(replace(start, excess_low=low, excess_high=high), start)

    assert judged(10.0, 14.999) == BETTER
    assert judged(10.0, 15.0) == OPEN  # they touch
    assert judged(17.0, 20.0) == OPEN
    assert judged(17.001, 20.0) == WORSE
    assert judged(15.5, 16.5) == judged(10.0, 30.0) == OPEN


def test_the_answer_counts_the_verdicts_and_names_best_and_cheapest(run):
    found = read_cells(run)
    counts = {said: len(found.of(said)) for said in (BETTER, WORSE, OPEN, UNKNOWN)}
    assert sum(counts.values()) == len(found.trained)
    assert counts[UNKNOWN] == 0
    lines = answer(found)
    assert f"Of {len(found.trained)} cells that were trained, {counts[BETTER]} are better than" in lines[0]
    assert f"({counts[WORSE]} worse, {counts[OPEN]} not separated); 1 failed, " in lines[0]
    assert lines[0].endswith(f" {sum(cell.excluded is not None for cell in cells())} are excluded.")
    assert f"diffusion forcing {TIMES} dmd: excess FVD 4.9 [4.5, 5.3], from 16.1 at its start" in lines[1]
    cheapest = min(found.of(BETTER), key=lambda row: row.tflop)
    assert cheapest.name in lines[2]
    assert f"{cheapest.tflop:.1f} TFLOP" in lines[2]
    assert "One seed: the intervals are over clips, not over training runs." in lines[3]


def test_where_no_cell_is_better_none_is_called_so(reports):
    rows = [{**row, "excess_low": 1.0, "excess_high": 99.0} for row in grid_rows()]
    write_cells(reports, rows=rows)
    text = as_text(read_cells(reports))
    assert " 0 are better than what they started from (" in text
    assert "cheapest" not in text


def test_cells_whose_start_is_unknown_have_no_verdict(reports):
    rows = [row for row in grid_rows() if (row["method"], row["loss"]) != ("self_forcing", START)]
    write_cells(reports, rows=rows, failed={"-".join(FAILED): "nan", f"self_forcing-{START}": "out of memory"})
    found = read_cells(reports)
    assert {row.method for row in found.of(UNKNOWN)} == {"self_forcing"}
    assert f"{len(found.of(UNKNOWN))} start unknown); 1 failed" in answer(found)[0]
    assert f"self forcing {TIMES} start failed: out of memory" in warnings_of(found, read_study(reports))


def test_failed_and_excluded_cells_are_told_with_their_reasons(run, section):
    text, table = as_text(read_cells(run)), sections.grid(read_study(run))
    assert f"failed: teacher forcing {TIMES} sid: student_loss must be finite: nan" in text
    assert f"teacher forcing {TIMES} sid failed: student_loss must be finite: nan" in section
    excluded = [cell for cell in cells() if cell.excluded]
    assert excluded
    for cell in excluded:
        assert cell.excluded in text
        assert f"left out: {cell.excluded}" in table


def test_the_grid_says_what_each_cell_minimises_and_who_published_it(run):
    page = unescape(sections.grid(read_study(run)))
    for cell in cells():
        assert cell.derived is None or cell.derived in page
        assert cell.divergence in page
        assert cell.paper is None or cell.paper.partition("arXiv:")[2] in page


def test_students_of_another_codec_or_profile_are_told(reports):
    write_cells(reports, codec="0" * 64, profile="smoke")
    assert warnings_of(read_cells(reports), read_study(reports)) == [
        "These students speak the latents of another codec than that of this run: python3 -m pipeline every-cell",
        "These students are of profile smoke, this page is of default",
        f"teacher forcing {TIMES} sid failed: student_loss must be finite: nan",
    ]


def test_section_and_pictures_are_the_same_bytes_in_another_place(run, section, reports):
    write_cells(reports)
    assert section_of(reports) == section
    for name in PICTURES:
        assert (reports / "figures" / name).read_bytes() == (run / "figures" / name).read_bytes()


def test_every_table_and_figure_of_a_smoke_grid_warns(tmp_path, write_run):
    reports = write_run(tmp_path, "smoke")
    write_cells(reports)
    assert section_of(reports).count("profile smoke: these numbers mean nothing") == 3 + 1
    for name in ("cells.svg", "cells_curves.svg", "cells_clips.svg"):
        assert "#b00020" in (reports / "figures" / name).read_text()


@pytest.mark.parametrize("name", ["run.json", "cells.csv", "curves.csv"])
def test_a_damaged_file_of_the_grid_is_named(reports, name):
    path = write_cells(reports) / name
    for content in ("{}", "", "method\nl2\n"):
        path.write_text(content)
        with pytest.raises(DamagedRecordError, match=f"cells/{name} is damaged"):
            read_cells(reports)
    path.unlink()
    with pytest.raises(DamagedRecordError, match=f"cells/{name} cannot be read"):
        read_cells(reports)


def test_a_cell_that_no_file_tells_of_is_missed(reports):
    write_cells(reports, failed={})
    with pytest.raises(DamagedRecordError, match=f"no row of teacher forcing {TIMES} sid"):
        read_cells(reports)


def test_a_loss_that_the_grid_has_not_is_refused(reports):
    path = write_cells(reports) / "run.json"
    path.write_text(path.read_text().replace('"kd"', '"unheard"'))
    with pytest.raises(DamagedRecordError, match="the grid has no unheard; known: l2"):
        read_cells(reports)


def test_clips_that_are_missing_or_of_another_shape_are_named(reports):
    path = write_cells(reports) / "samples.npz"
    clips, found = dict(np.load(path)), read_cells(reports)
    np.savez(path, **{**clips, "self_forcing-kd": clips["self_forcing-kd"][0]})
    with pytest.raises(DamagedRecordError, match=r"samples\.npz is damaged: self_forcing-kd must be uint8"):
        read_clips(reports, found)
    np.savez(path, **{name: one for name, one in clips.items() if name != "self_forcing-kd"})
    with pytest.raises(DamagedRecordError, match=r"samples\.npz is damaged: it lacks .*self_forcing-kd"):
        read_clips(reports, found)
    path.unlink()
    with pytest.raises(DamagedRecordError, match=r"samples\.npz cannot be read"):
        read_clips(reports, found)


def test_every_loss_has_a_colour_of_its_own():
    assert len(set(HUES)) == len(HUES) >= len(LOSSES)
