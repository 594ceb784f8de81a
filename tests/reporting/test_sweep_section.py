"""The section of the sweep: made of its numbers, careful in what it claims, and whole where the sweep is not."""

import csv
import re
from html import unescape

import numpy as np
import pytest

from pipeline.grid import Cell
from pipeline.records import DamagedRecordError
from pipeline.reporting.read import TIMES, artifact_digest, read_study
from pipeline.reporting.sweep import CAPTIONS, as_text, sweep_sections
from pipeline.reporting.sweep_audit import differences
from pipeline.reporting.sweep_csv import AuditRow
from pipeline.reporting.sweep_read import bounds, read_sweep
from pipeline.reporting.sweep_rows import MEASURES
from pipeline.reporting.sweep_trainings import read_clips
from pipeline.reporting.sweep_words import COMMAND, absent_said, answer, caveats, incomplete, warnings_of
from tests.reporting.sweep_files import CELLS, EXCLUDED, HEADS, REASON, write_sweep

PICTURES = tuple(CAPTIONS)
FEW = (("diffusion_forcing", "dmd"), ("self_forcing", "dmd"))


def with_sweep(reports, **which):
    write_sweep(reports, codec=artifact_digest(read_study(reports).stage("codec")), **which)
    return reports


def section_of(reports):
    found = read_sweep(reports)
    parts = sweep_sections(read_study(reports), found, read_clips(reports, found), reports)
    return unescape("\n".join(line for part in parts.values() for line in part))


def edit(path, change):
    """Every row of a CSV through `change`, which may drop it by returning None."""
    with path.open(newline="") as file:
        rows = [row for old in csv.DictReader(file) if (row := change(old)) is not None]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADS[path.name], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_run):
    """reports/ with a whole sweep, one trial of which failed."""
    return with_sweep(write_run(tmp_path_factory.mktemp("sweep")))


@pytest.fixture(scope="module")
def page(run):
    return section_of(run)


def test_the_section_holds_its_figures_tables_and_command(run, page):
    assert page.count("<figure") == len(PICTURES)
    assert page.count("<table") == 2 + 2 + 2  # of each phase; settings and costs of each; the audit, folded and not
    assert "<code>python3 -m pipeline sweep</code>" in page
    assert page.count('<p class="source">') == page.count(f"<code>{COMMAND}</code></p></figure>") == len(PICTURES)


def test_page_and_terminal_show_the_means_of_the_file_with_their_intervals(run, page):
    text = as_text(read_sweep(run))
    tuned, default, *_ = re.findall(r"<table.*?</table>", page, re.DOTALL)
    tables = {"tuned": tuned, "default": default}
    with (run / "grid" / "cells.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] in tables]
    assert len(rows) == 2 * len(CELLS) * len(MEASURES)
    for row in rows:
        name = f"{row['method']} {TIMES} {row['loss']}".replace("_", " ")
        (line,) = re.findall(rf"<tr><th[^>]*>{name}</th>.*?</tr>", tables[row["phase"]])
        mean, low, high = (MEASURES[row["metric"]].shown(float(row[key])) for key in ("mean", "low", "high"))
        assert f"{mean}<br><small>[{low}, {high}]</small>" in line
        assert line.split("</td>")[0].endswith(f"<td>{row['num_seeds']}")
        if row["metric"] == "excess":
            assert f"{mean} [{low}, {high}]" in text


def test_text_fits_a_terminal_of_120_columns(run):
    assert max(map(len, as_text(read_sweep(run)).splitlines())) <= 120


def test_the_answer_is_four_sentences_made_of_the_numbers(run):
    found = read_sweep(run)
    best, separated, published, tuning = answer(found)
    cells = {cell: found.means["tuned"][cell]["excess"].mean for cell in found.means["tuned"]}
    name = min(cells, key=lambda cell: cells[cell])
    assert f"The best cell is {name.method.replace('_', ' ')} {TIMES} {name.loss}, tuned" in best
    assert f"excess FVD {cells[name]:.1f} [" in best
    count = sum(row.verdict != "not separated" for row in found.pairs["tuned"])
    assert f"separate {count} of {len(CELLS) * (len(CELLS) - 1) // 2} pairs" in separated
    assert f"{sum(bool(row.confounds) for row in found.pairs['tuned'])} pairs are confounded" in separated
    frame, chunk = (order for order in found.orders if order.phase == "tuned")
    assert f"frame-wise, the orders agree ({frame.tau:.2f} [{frame.low:.2f}, {frame.high:.2f}] over 7" in published
    assert bounds(chunk)[0] < 0 < bounds(chunk)[1]
    assert "chunk-wise, these seeds do not say whether the orders agree" in published
    lower = sum(found.means["default"][cell]["excess"].mean > cells[cell] for cell in cells)
    assert f"Tuning lowered the mean of {lower} of {len(CELLS)} cells" in tuning


def test_orders_whose_interval_lies_below_zero_run_against_each_other(reports):
    with_sweep(reports, cells=CELLS[3:])
    edit(reports / "grid" / "orders.csv", lambda row: {**row, "tau": -0.5, "low": -0.8, "high": -0.2})
    assert "frame-wise, the orders run against each other (-0.50 [-0.80, -0.20]" in answer(read_sweep(reports))[2]


def test_one_seed_has_no_interval_and_says_so(reports):
    with_sweep(reports, num_seeds=1)
    said = " ".join(caveats(read_sweep(reports)))
    assert "One seed says nothing of what others would do" in said
    assert "percentiles" not in said


def test_orders_that_few_cells_may_share_by_chance_are_not_said_to_agree(reports):
    with_sweep(reports, cells=CELLS[3:])
    edit(
        reports / "grid" / "orders.csv", lambda row: {**row, "tau": 0.43, "low": 0.2, "high": 0.6, "p_value": 0.24}
    )
    said = answer(read_sweep(reports))[2]
    assert "frame-wise, no more than chance may bring about (0.43 [0.20, 0.60] over 7 cells: 24 % of all" in said


def test_failed_and_excluded_cells_are_told_with_their_reasons(run, page):
    text = as_text(read_sweep(run))
    for told in (page, text):
        assert f"failed: teacher_forcing-sid tuned seed 3: {REASON}" in told
        assert f"teacher forcing {TIMES} sid has 2" in told
        assert EXCLUDED["self_forcing-l2"] in told
    assert page.index(REASON) < page.index("The best cell is")  # said first


def test_a_sweep_that_is_not_finished_shows_what_it_has_and_names_the_rest(reports):
    missing = ["self_forcing-dmd default seed 3", "diffusion_forcing-dmd default seed 3"]
    with_sweep(reports, phases=("default",), num_seeds=2, cells=FEW, missing=missing, failed=())
    lines = incomplete(read_sweep(reports))
    assert lines[0] == f"2 trials are missing: {', '.join(missing)}. python3 -m pipeline sweep goes on"
    assert "no cell is measured tuned" in lines
    assert f"diffusion forcing {TIMES} dmd has 2" in lines[2]
    assert "what the cells start from is not measured" in lines
    page = section_of(reports)
    assert page.count("<figure") == len(PICTURES)
    assert "of 1 pairs of cells" in page
    assert "Nothing can be said of tuning yet." in page


def test_one_cell_with_one_seed_is_shown_without_intervals_pairs_and_orders(reports):
    with_sweep(reports, phases=("default",), num_seeds=1, cells=FEW[1:], failed=())
    page = section_of(reports)
    assert "inf" not in re.sub(r'(src|href)="data:[^"]*"', "", page)
    assert "There is no pair of cells to compare." in page
    assert "too few of those cells are here" in page
    assert page.count("<figure") == len(PICTURES)


def test_a_cell_all_of_whose_seeds_failed_is_crossed_out_with_its_reason(reports):
    failed = [("self_forcing", "dmd", "default", seed) for seed in (1, 2, 3)]
    with_sweep(reports, phases=("start", "default"), failed=failed)
    found = read_sweep(reports)
    assert found.absence("default", Cell("self_forcing", "dmd")) == ("failed", REASON)
    assert f"self forcing {TIMES} dmd has none" in " ".join(incomplete(found))
    assert (
        absent_said(found, read_study(reports))[-1]
        == f"not measured, by the settings of the grid: self forcing {TIMES} dmd (failed)"
    )
    assert answer(found)[0].startswith(f"The best of the {len(CELLS) - 1} cells that are measured is self forcing")


def test_where_tuning_was_not_asked_for_it_is_not_missed(reports):
    path = with_sweep(reports, phases=("start", "default"), failed=()) / "grid" / "run.json"
    path.write_text(path.read_text().replace('"tuning": {"num_trials": 4}', '"tuning": null'))
    found = read_sweep(reports)
    assert incomplete(found) == []
    assert answer(found)[3] == "Nothing can be said of tuning: it was not asked for."


def test_differences_are_grouped_by_parameter_and_told_by_what_decides_them(run, page):
    lines = differences(read_sweep(run).differing)
    assert len({(line.kind, line.path) for line in lines}) == len(lines) < 12
    assert lines[0].kind == "confounds"
    words = {line.path: line.words for line in lines}
    assert words["train.training.critic_optimizer.name"] == "muon for dmd, sid; adamw for gan"
    forcing = "teacher forcing, diffusion forcing, self forcing"
    assert words["train.training.ema_decay"] == f"0.99 for bidirectional; 0.999 for {forcing}"
    assert page.index("critic_optimizer.name") < page.index("<details>") < page.index("train.loss.type")


def row_of(a, b, value_a, value_b, kind):
    return AuditRow("tuned", a, b, "x", value_a, value_b, kind, "")


def test_differences_that_no_axis_decides_name_their_cells():
    (a, b, c) = ("self_forcing-dmd", "self_forcing-gan", "teacher_forcing-dmd")
    rows = [row_of(a, b, "1", "2", "budget"), row_of(a, c, "1", "", "budget")]
    (line,) = differences(rows)
    assert line.words == f"1 for SF{TIMES}DMD; 2 for SF{TIMES}GAN; not set for TF{TIMES}DMD"
    assert line.num_pairs == 2
    (line,) = differences([row_of(a, b, "pipeline.losses.dmd.Dmd", "ab" * 32, "axis")])
    assert line.words == "Dmd for dmd; abababab for gan"
    many = [row_of(a, "-".join(cell), "0", str(i), "follows") for i, cell in enumerate(CELLS[:9], start=1)]
    assert differences(many)[0].words == "10 values in 10 cells"
    with pytest.raises(ValueError, match=r"a kind must be one of confounds, .*, got unheard"):
        differences([row_of(a, b, "1", "2", "unheard")])


def test_students_of_another_codec_or_profile_are_told(reports):
    write_sweep(reports, codec="0" * 64, profile="smoke")
    first, second, *_ = warnings_of(read_sweep(reports), read_study(reports))
    assert first.endswith("of another codec than that of this run: python3 -m pipeline sweep")
    assert second == "These students are of profile smoke, this page is of default"


@pytest.mark.parametrize("name", ["run.json", *HEADS])
def test_a_damaged_file_of_the_sweep_is_named(reports, name):
    path = with_sweep(reports) / "grid" / name
    path.write_text("method\nl2\n")
    with pytest.raises(DamagedRecordError, match=f"grid/{name} is damaged"):
        read_sweep(reports)
    path.unlink()
    with pytest.raises(DamagedRecordError, match=f"grid/{name} cannot be read"):
        read_sweep(reports)


def test_a_cell_that_the_grid_has_not_is_refused(reports):
    path = with_sweep(reports) / "grid" / "ranks.csv"
    edit(path, lambda row: {**row, "cell": "self_forcing-unheard"})
    with pytest.raises(DamagedRecordError, match=r"ranks\.csv is damaged: the grid has no cell self_forcing-unhe"):
        read_sweep(reports)


def test_drift_of_another_measure_or_without_a_measured_cell_is_refused(reports):
    path = with_sweep(reports) / "grid" / "drift.csv"
    whole = path.read_text()
    edit(path, lambda row: None if (row["method"], row["loss"]) == ("self_forcing", "gan") else row)
    with pytest.raises(
        DamagedRecordError, match=rf"drift\.csv is damaged: it has no row of self forcing {TIMES} gan"
    ):
        read_sweep(reports)
    path.write_text(whole.replace(",window,", ",pane,"))
    with pytest.raises(DamagedRecordError, match="a measure must be one of window, frame, got pane"):
        read_sweep(reports)


def test_clips_that_are_missing_or_of_another_shape_are_named(reports):
    path = with_sweep(reports) / "grid" / "samples.npz"
    clips, found = dict(np.load(path)), read_sweep(reports)
    assert read_clips(reports, found)[Cell("self_forcing", "gan")].shape == (4, 16, 1, 16, 16)
    np.savez(path, **{**clips, "self_forcing-gan": clips["self_forcing-gan"][0]})
    with pytest.raises(DamagedRecordError, match=r"samples\.npz is damaged: self_forcing-gan must be uint8"):
        read_clips(reports, found)
    np.savez(path, **{name: one for name, one in clips.items() if name != "self_forcing-gan"})
    with pytest.raises(DamagedRecordError, match=r"samples\.npz is damaged: it lacks .*self_forcing-gan"):
        read_clips(reports, found)
