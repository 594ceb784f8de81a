"""The table says what the records say."""

import csv
import json

import pytest

from pipeline.records import DamagedRecordError
from pipeline.reporting.read import read_study
from pipeline.reporting.tables import as_text, best_rows, grid_rows, main, write_grid
from pipeline.unit import PROJECT

WIDTH = 120


@pytest.fixture
def rows(reports):
    return {row["checkpoint"]: row for row in grid_rows(read_study(reports))}


def record_of(reports, *name):
    return json.loads(reports.joinpath(*name, "record.json").read_text())


def edit_record(directory, change):
    record = json.loads((directory / "record.json").read_text())
    change(record)
    (directory / "record.json").write_text(json.dumps(record))


def test_grid_holds_what_the_records_say(reports, rows):
    for name, row in rows.items():
        stage, found, item = name.partition("@")
        if not found:
            continue
        measured = record_of(reports, "evaluate", f"{stage}-{item}")["metrics"]
        trained = record_of(reports, stage, item)
        assert row["fvd"] == measured["fvd"]["value"]
        assert row["floor"] == measured["fvd"]["floor"]
        assert [row["excess_low"], row["excess_high"]] == measured["fvd"]["interval"]
        assert row["recall"] == measured["coverage"]["recall"]
        assert row["agreement_last"] == measured["identity"]["first_to_last"]
        assert row["kappa_last"] == measured["identity"]["kappa_last"]
        assert row["speed_w1"] == measured["kinematics"]["speed_w1"]
        assert row["latency_s"] == measured["sampling"]["latency_s"]
        assert row["clips_seen"] == trained["metrics"]["clips_seen"]
        assert row["seconds"] == trained["timing"]["seconds"]


def test_grid_names_method_loss_and_what_it_claims(rows):
    row = rows["rollout@dmd"]
    assert (row["method"], row["loss"], row["attention"]) == ("self_forcing", "dmd", "causal")
    assert row["divergence"] == "reverse KL, averaged over noise"
    assert row["paper"] == "Self-Forcing, arXiv:2506.08009"
    assert rows["teacher@bidirectional"]["attention"] == "full"


def test_grid_sums_the_cost_of_all_ancestors_once(rows):
    # teachers 1 and 2, init 3, distill@dmd 4, rollout@dmd 6; codec and clips have no counter
    assert rows["rollout@dmd"]["flops"] == 6 * 10**14
    assert rows["rollout@dmd"]["flops_with_ancestors"] == (1 + 2 + 3 + 4 + 6) * 10**14
    clips_and_codec = 5.0 + 70.0
    assert rows["rollout@dmd"]["seconds_with_ancestors"] == clips_and_codec + 100 + 200 + 300 + 400 + 600
    assert rows["teacher@causal"]["seconds_with_ancestors"] == clips_and_codec + 100


def test_grid_ends_with_real_clips_for_scale(rows):
    assert list(rows)[-3:] == ["real clips", "real, through codec", "training clips"]
    assert rows["real, through codec"]["agreement_last"] == 0.951
    assert rows["real clips"]["fvd"] == rows["teacher@causal"]["floor"]
    assert rows["training clips"]["excess"] == 0.8
    assert rows["training clips"]["flops"] is None


def test_best_value_is_marked_at_the_better_end(rows):
    assert best_rows([3, 1, 2], -1) == [1]
    assert best_rows([3, 1, 3], +1) == [0, 2]
    assert best_rows([3, None, 2], -1) == [2]
    assert best_rows([2, 2], +1) == []
    assert best_rows([3, 1], 0) == []
    assert {"excess", "recall", "agreement_last"} <= set(rows["teacher@bidirectional"]["best_in"].split())
    assert "excess" not in rows["rollout@dmd"]["best_in"]


def test_bits_are_the_least_of_the_paths_and_empty_where_they_are_not_defined(reports, rows, tmp_path):
    paths = record_of(reports, "evaluate", "teacher-causal")["metrics"]["bits_per_dim"]
    row = rows["teacher@causal"]
    assert (row["bits"], row["bits_path"], row["bits_error"]) == (paths["lockstep"]["value"], "lockstep", 0.01)
    assert row["bits"] == min(paths[name]["value"] for name in ("teacher_forcing", "pyramid", "lockstep"))
    assert rows["teacher@bidirectional"]["bits_path"] == "teacher_forcing"
    write_grid(read_study(reports), tmp_path / "grid.csv")
    with (tmp_path / "grid.csv").open(newline="") as file:
        read = {row["checkpoint"]: row for row in csv.DictReader(file)}
    assert float(read["teacher@causal"]["bits"]) == row["bits"]
    assert read["rollout@dmd"]["bits"] == read["real clips"]["bits"] == ""
    assert read["rollout@dmd"]["bits_absence"].startswith(
        "not defined: dmd trains the frames that a few steps make"
    )
    assert read["teacher@causal"]["bits_absence"] == read["real clips"]["bits_absence"] == ""


def test_bits_that_were_not_asked_for_are_not_measured(reports):
    edit_record(reports / "evaluate" / "teacher-causal", lambda record: record["work"].update(bits=None))
    rows = {row["checkpoint"]: row for row in grid_rows(read_study(reports))}
    assert rows["teacher@causal"]["bits"] is None
    assert rows["teacher@causal"]["bits_absence"] == "not measured: evaluate.bits is null"


def test_bits_that_a_teacher_lacks_are_named(reports):
    edit_record(reports / "evaluate" / "teacher-causal", lambda record: record["metrics"].pop("bits_per_dim"))
    with pytest.raises(DamagedRecordError, match=r"teacher-causal/record\.json .* metrics\.bits_per_dim"):
        grid_rows(read_study(reports))


def test_csv_keeps_every_row_and_digit(reports, rows, tmp_path):
    write_grid(read_study(reports), tmp_path / "grid.csv")
    with (tmp_path / "grid.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["checkpoint"] for row in read] == list(rows)
    assert [float(row["fvd"]) for row in read[:6]] == [row["fvd"] for row in list(rows.values())[:6]]


def test_text_fits_the_terminal_and_aligns(reports):
    lines = as_text(read_study(reports)).splitlines()
    assert max(map(len, lines)) <= WIDTH
    quality = "\n".join(lines).split("\n\n")[0].splitlines()
    ends = quality[1].index(" precision") + len(" precision")  # heads and numbers end in one column
    rows = [line[:ends] for line in quality[2:5]]
    assert all(row.endswith(tuple("0123456789")) for row in rows)
    assert all(line == line.rstrip() for line in lines)


def test_the_longest_name_of_the_tracked_results_fits_the_terminal():
    assert max(map(len, as_text(read_study(PROJECT / "reports")).splitlines())) <= WIDTH


def test_text_fits_the_terminal_when_distances_are_large(reports):
    for path in reports.glob("evaluate/*/record.json"):
        record = json.loads(path.read_text())
        record["metrics"]["fvd"].update(value=98765.4, excess=98760.1, interval=[95000.0, 99999.9])
        path.write_text(json.dumps(record))
    assert max(map(len, as_text(read_study(reports)).splitlines())) <= WIDTH


def test_smoke_profile_says_that_its_numbers_mean_nothing(tmp_path, write_run):
    reports = write_run(tmp_path, "smoke")
    study = read_study(reports)
    write_grid(study, reports / "grid.csv")
    assert as_text(study).startswith("!! profile smoke: these numbers mean nothing")
    with (reports / "grid.csv").open(newline="") as file:
        assert {row["warning"] for row in csv.DictReader(file)} == {"profile smoke: these numbers mean nothing"}


def test_default_profile_warns_of_nothing(reports):
    assert "mean nothing" not in as_text(read_study(reports))


def test_table_names_the_record_that_lacks_a_number(reports):
    path = reports / "evaluate" / "rollout-gan" / "record.json"
    record = json.loads(path.read_text())
    del record["metrics"]["identity"]["first_to_last"]
    path.write_text(json.dumps(record))
    with pytest.raises(DamagedRecordError, match=r"rollout-gan/record\.json .* metrics\.identity\.first_to_last"):
        grid_rows(read_study(reports))


def test_main_prints_the_table_or_one_line(reports, capsys):
    assert main([str(reports.parent)]) == 0
    assert "rollout@gan" in capsys.readouterr().out
    (reports / "codec" / "record.json").write_text("{")
    assert main([str(reports.parent)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "codec/record.json" in captured.err
