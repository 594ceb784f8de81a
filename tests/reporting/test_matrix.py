"""The picture that the report opens with, and the three sentences above it."""

import csv
import json

import pytest

from pipeline.grid import Cell
from pipeline.reporting.laboratory.results import read_laboratory
from pipeline.reporting.matrix import draw_matrix, found_of, measured_of, said_of
from pipeline.reporting.opening import three_sentences
from pipeline.reporting.page import write_report
from pipeline.reporting.read import read_study
from pipeline.reporting.style import theme
from pipeline.reporting.sweep_read import read_sweep
from tests.laboratory_files import write_laboratory_files
from tests.reporting.sweep_files import CELLS, REASON, write_sweep


def rewrite(reports, change):
    """The sweep as if its grid had had other parameters."""
    path = reports / "grid" / "run.json"
    about = json.loads(path.read_text())
    change(about["grid"])
    path.write_text(json.dumps(about))


@pytest.fixture
def both(reports):
    """reports/ with a sweep whose cells are set as those of the laboratory."""
    write_sweep(reports)
    write_laboratory_files(reports)
    return reports


def drawn(reports):
    laboratory = read_laboratory(reports) if (reports / "laboratory").exists() else None
    (reports / "figures").mkdir(exist_ok=True)
    with theme():
        path = draw_matrix(read_sweep(reports), laboratory, read_study(reports), reports / "figures" / "matrix.svg")
    with path.with_suffix(".csv").open(newline="") as file:
        return {Cell(row["method"], row["loss"]): row for row in csv.DictReader(file)}


def test_matrix_holds_the_means_of_the_sweep_and_what_the_laboratory_found(both):
    rows = drawn(both)
    found, laboratory = read_sweep(both), read_laboratory(both)
    assert len(rows) == len(found.methods) * len(found.losses)
    for cell, row in rows.items():
        measured = found.excess(found.last, cell)
        if measured is None:
            assert (row["status"], row["reason"]) == ("excluded", found.excluded[cell])
        else:
            ends = [float(row[name]) for name in ("excess", "low", "high")]
            assert ends == pytest.approx([measured.mean, measured.low, measured.high])
    dmd = rows[Cell("self_forcing", "dmd")]
    assert (dmd["claimed"], dmd["verdict_of_table"]) == ("reverse KL", "refuted")
    assert (
        dmd["minimises"] == "; ".join(measured_of(found, laboratory, Cell("self_forcing", "dmd")).minimises) != ""
    )


def test_a_cell_is_told_what_the_laboratory_found_of_its_own_setting(both):
    laboratory, gan = read_laboratory(both), Cell("bidirectional", "gan")
    ends = {}
    for objective in ("saturating", "non_saturating"):
        rewrite(both, lambda grid, objective=objective: grid["losses"]["gan"].update(objective=objective))
        ends[objective] = found_of(measured_of(read_sweep(both), laboratory, gan))
    assert ends == {
        "saturating": "found: noise-averaged Jensen\u2013Shannon",
        "non_saturating": "found: noise-averaged softened reverse KL",
    }


def test_a_setting_that_the_laboratory_lacks_is_not_told_that_of_another(both):
    rewrite(both, lambda grid: grid["methods"]["self_forcing"].update(detach_context=False))
    found, laboratory = read_sweep(both), read_laboratory(both)
    one = measured_of(found, laboratory, Cell("self_forcing", "dmd"))
    assert (one.claim, one.minimises) == (None, ())
    assert found_of(one) == "not measured in the laboratory"
    assert said_of(Cell("self_forcing", "dmd"), one) == "said: reverse KL, averaged over noise"


def test_half_a_sweep_says_in_the_matrix_what_is_missing_and_what_failed(reports):
    cell = ("teacher_forcing", "sid")
    failed = [(*cell, phase, seed) for phase in ("default", "tuned") for seed in (1, 2, 3)]
    left = [("self_forcing", "gan", "tuned", seed) for seed in (1, 2, 3)]
    write_sweep(reports, failed=failed, left=left, missing=[f"self_forcing-gan tuned seed {n}" for n in (1, 2, 3)])
    rows = drawn(reports)
    assert (rows[Cell(*cell)]["status"], rows[Cell(*cell)]["reason"]) == ("failed", REASON)
    assert rows[Cell("self_forcing", "gan")]["status"] == "missing"
    text = write_report(reports, profile="default").read_text()
    head = text.split("</header>")[0]
    assert "3 trials are missing: self_forcing-gan tuned seed 1" in head
    assert REASON in head


def test_three_sentences_name_the_best_cell_the_claims_and_what_it_minimises(both):
    laboratory = read_laboratory(both)
    unmeasured = three_sentences(read_sweep(both), laboratory)[-1]
    assert unmeasured == "What self forcing \u00d7 gan minimises, the laboratory has not measured."
    write_sweep(both, cells=[cell for cell in CELLS if cell[1] in ("l2", "dmd")])
    found = read_sweep(both)
    best, claims, minimised = three_sentences(found, laboratory)
    assert best.startswith("The best cell is self forcing \u00d7 dmd, tuned: excess FVD ")
    counts = [claim.verdict for claim in laboratory.claims if claim.reading == "table"]
    assert f"confirms {counts.count('confirmed')} of {len(counts)} as they stand, of clean clips" in claims
    assert minimised.startswith("On processes of known density, with students too small to fit, self forcing")
    for sentence in (best, claims, minimised):
        assert sentence.endswith(".")
