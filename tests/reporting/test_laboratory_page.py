"""The page of the laboratory says what its files say, of whatever run they are, and stands alone."""

import csv
import re
from html import unescape

import pytest

from pipeline.records import DamagedRecordError
from pipeline.reporting.laboratory import words
from pipeline.reporting.laboratory.answers import (
    answer,
    exposure,
    learned,
    meaning,
    reasons,
    roll_out,
    rows_of,
    span,
    subject,
)
from pipeline.reporting.laboratory.evidence import answered
from pipeline.reporting.laboratory.page import write_laboratory
from pipeline.reporting.laboratory.results import read_laboratory
from tests.laboratory_files import ENDS, FILES, OPTIMA, default_params, write_laboratory_files

WARNING = "profile smoke: these numbers mean nothing"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """reports/ with the laboratory's files and its page."""
    reports = tmp_path_factory.mktemp("laboratory")
    write_laboratory_files(reports)
    write_laboratory(reports, profile="default")
    return reports


def text_of(reports):
    return (reports / "laboratory.html").read_text()


def rows_in(reports, name):
    with (reports / "laboratory" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def names_in(reports):
    return {path.name for path in (reports / "laboratory").iterdir()}


def shown(text):
    """Without tags, spaces made one."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


def section(text, ident):
    return re.search(rf'<section id="{ident}">(.*?)</section>', text, re.DOTALL).group(1)


def table_rows(text):
    return [shown(row) for row in re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)]


def test_page_asks_nothing_of_the_network(run):
    text = text_of(run)
    assert not re.search(r"<(script|link|iframe|object|video)\b|@import|url\(|srcset|http-equiv", text)
    sources = re.findall(r'src="([^"]{0,40})', text)
    assert len(sources) > 8
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)


def test_its_parts_are_closed_and_every_link_leads_somewhere(run):
    text = text_of(run)
    ids = re.findall(r'id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    for link in re.findall(r'href="(laboratory/[^"]+)"', text):
        assert (run / link).exists()
    assert set(re.findall(r'href="laboratory/([^"]+)"', text)) == names_in(run)
    for tag in ("section", "table", "div", "ul", "li", "details", "figure"):
        assert len(re.findall(rf"<{tag}\b", text)) == text.count(f"</{tag}>")


def test_every_claim_stands_in_the_table_with_its_verdict(run):
    rows = table_rows(section(text_of(run), "claim-by-claim"))
    claims = rows_in(run, "claims.csv")
    assert len(claims) == 12
    for claim in claims:
        name, _, claimed = claim["claim"].rpartition(": ")
        row = next(row for row in rows if row.startswith(subject(name)))
        averaged = "noise-averaged " if claim["reading"] == "text" and claimed != "none" else ""
        mark = {"confirmed": "\u2713", "refuted": "\u2717", "undecided": "?"}[claim["verdict"]]
        assert f"{claim['reading']}: {averaged}{words.objective(claimed)} {mark} {claim['verdict']}" in row


def test_every_measurement_stands_in_the_table_of_its_process_with_its_distances(run):
    rows = table_rows(section(text_of(run), "every-cell"))
    verdicts = rows_in(run, "verdicts.csv")
    num_processes = len({verdict["process"] for verdict in verdicts})
    assert len(rows) == len(verdicts) + num_processes  # and a row of heads each
    for verdict in verdicts:
        critics = ", learned critics" if verdict["critics"] == "learned" else ""
        start = f"{words.cell(verdict['cell'])}{critics} "
        nearest = f"{words.objective(verdict['nearest'])} {float(verdict['distance']):.3f}"
        found = [row for row in rows if row.startswith(start) and nearest in row]
        assert found, (start, nearest)
        assert verdict["derived_verdict"] in found[0]


def test_reasons_are_those_of_the_file_with_words_for_names(run):
    found = read_laboratory(run)
    claim = next(
        one for one in found.claims if one.claim == "self_forcing x dmd: reverse_kl" and one.reading == "table"
    )
    said = reasons(found, claim)
    assert len(said) == 2
    assert said[1].startswith(
        "self forcing \u00d7 DMD on L: it settles on noise-averaged reverse KL, context detached"
    )
    assert re.findall(r"\d\.\d+", " ".join(said)) == re.findall(r"\d\.\d+", claim.reason)


def test_the_answer_counts_claims_and_students(run):
    said = " ".join(answer(read_laboratory(run)))
    verdicts = [row["verdict"] for row in rows_in(run, "claims.csv") if row["reading"] == "table"]
    assert f"as divergences of clean clips: {verdicts.count('confirmed')} confirmed, " in said
    assert f"{verdicts.count('refuted')} refuted" in said
    derived = [row for row in rows_in(run, "verdicts.csv") if row["derived"] and row["critics"] == "exact"]
    with_optima = [row for row in derived if row["derived"] in OPTIMA[row["process"]]]
    assert f"of {len(with_optima)} students with exact critics, {len(with_optima)} end within 0.02" in said


def test_another_run_is_told_otherwise(tmp_path):
    ends = {
        "bidirectional-gan_non_saturating": {"A": "jensen_shannon_averaged"},
        "self_forcing-dmd": {"D": "reverse_kl", "L": "reverse_kl"},
    }
    write_laboratory_files(tmp_path, ends=ends)
    found = read_laboratory(tmp_path)
    by_name = {one.question.name: one.judgement.verdict.value for one in answered(found)}
    assert (by_name["non_saturating"], by_name["detached"]) == ("confirmed", "refuted")
    said = " ".join(answer(found))
    assert "What this project derives instead holds up" not in said
    num = len([row for row in found.judged if row.critics == "exact" and found.away(row, row.derived) is not None])
    assert f"Of {num} students with exact critics, {num - 3} end within 0.02" in said
    row = next(row for row in rows_of(found) if row.subject == "self_forcing x dmd")
    assert {claim.reading: claim.verdict for claim in row.claims} == {"table": "confirmed", "text": "refuted"}
    assert "Confirmed as the table has it, refuted as the text has it: self forcing \u00d7 DMD" in said


def test_tempting_claims_are_judged_by_the_students(run):
    found = read_laboratory(run)
    verdicts = {one.question.name: one.judgement.verdict.value for one in answered(found)}
    assert verdicts == {
        "non_saturating": "refuted",
        "averaged_dmd": "refuted",
        "detached": "refuted",
        "by_frame": "refuted",
        "restored": "confirmed",
        "weights": "refuted",
        "noisy_contexts": "refuted",
    }
    text = section(text_of(run), "tempting-claims-and-what-students-say")
    assert re.findall(r'class="verdict (\w+)"', text) == list(verdicts.values())
    row = read_laboratory(run).of("bidirectional-gan_non_saturating", "A")
    assert row is not None
    supposed = OPTIMA["A"]["jensen_shannon_averaged"]
    away = max(abs(at - expected) for at, expected in zip(row.at.values(), supposed, strict=True))
    assert f"{away:.3f} from the supposed noise-averaged Jensen" in text


def test_the_same_files_give_the_same_bytes(run, tmp_path):
    write_laboratory_files(tmp_path)
    write_laboratory(tmp_path, profile="default")
    assert (tmp_path / "laboratory.html").read_bytes() == (run / "laboratory.html").read_bytes()
    names = sorted(path.name for path in (run / "figures").iterdir())
    assert all(name.startswith("laboratory_") for name in names)
    for name in names:
        assert (tmp_path / "figures" / name).read_bytes() == (run / "figures" / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_damaged_file_is_named(tmp_path, name):
    path = write_laboratory_files(tmp_path, processes=("A",), num_seeds=1) / name
    for content in ("{}", "", "cell\nx\n"):
        path.write_text(content)
        with pytest.raises(DamagedRecordError, match=f"laboratory/{name} is damaged"):
            read_laboratory(tmp_path)
    path.unlink()
    with pytest.raises(DamagedRecordError, match=f"laboratory/{name} cannot be read"):
        write_laboratory(tmp_path, profile="default")


def test_a_verdict_on_what_was_not_predicted_is_refused(tmp_path):
    path = write_laboratory_files(tmp_path, processes=("A", "L"), num_seeds=1) / "predicted.csv"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("L,")) + "\n")
    with pytest.raises(DamagedRecordError, match=r"predicted\.csv is damaged: it has no optimum of L"):
        read_laboratory(tmp_path)


def test_objectives_without_a_predicted_optimum_are_named_with_the_reason(run, tmp_path):
    assert "Without a predicted optimum" not in text_of(run)
    write_laboratory_files(tmp_path, processes=("A",), without={"fisher": "no student <m, s> is an optimum"})
    write_laboratory(tmp_path, profile="default")
    said = shown(section(text_of(tmp_path), "what-it-does-not-say"))
    assert said.endswith("Without a predicted optimum are: Fisher divergence on A: no student <m, s> is an optimum")


def test_a_failed_unit_is_shown_with_its_reason(tmp_path):
    failed = {("bidirectional-sid", "A", "exact", 0): "student_loss must be finite: <nan>"}
    write_laboratory_files(tmp_path, processes=("A",), failed=failed)
    write_laboratory(tmp_path, profile="default")
    text = text_of(tmp_path)
    assert "bidirectional-sid-A-exact-0 failed: student_loss must be finite: &lt;nan&gt;" in text
    assert "student_loss must be finite" in section(text, "provenance")


@pytest.mark.parametrize("process", ["A", "D", "L"])
def test_a_run_of_one_process_and_one_seed_makes_a_page(tmp_path, process):
    write_laboratory_files(tmp_path, processes=(process,), num_seeds=1)
    text = write_laboratory(tmp_path, profile="default").read_text()
    assert ("which-modes-are-kept" in text) == (process != "L")
    assert "One seed: there are no intervals over seeds." in section(text, "what-it-does-not-say")
    assert f"laboratory_map_{process}.svg" in {path.name for path in (tmp_path / "figures").iterdir()}


def test_profile_must_be_that_of_the_files_and_smoke_warns(tmp_path):
    write_laboratory_files(tmp_path, processes=("A",), profile="smoke", num_seeds=1)
    with pytest.raises(DamagedRecordError, match=r"run\.json must be of profile default, found: smoke"):
        write_laboratory(tmp_path, profile="default")
    text = write_laboratory(tmp_path, profile="smoke").read_text()
    tables, figures = text.count("<caption>"), len(re.findall(r"<figcaption>", text))
    assert text.count(WARNING) >= 2 + tables
    assert figures > 3


def test_roll_outs_are_told_by_their_last_variance(run):
    said = exposure(read_laboratory(run))
    last = [
        row for row in rows_in(run, "exposure.csv") if row["frame"] == "23" and row["rollout"] == "teacher_forcing"
    ]
    variance = sum(float(row["variance"]) for row in last) / len(last)
    assert f"teacher forcing {variance:.2f}" in said
    assert "self forcing 1.00" in said


def test_cells_that_are_rolled_out_say_where_their_variance_goes(run):
    found = read_laboratory(run)
    said = {row.subject: roll_out(found, row) for row in rows_of(found)}
    assert said["self_forcing x dmd"].endswith("to 24 frames, its frames have a variance of 1.00, data of 1.")
    assert re.search(r"variance of 1\.2\d, data of 1", said["teacher_forcing x l2 (elbo)"])
    assert {subject for subject, one in said.items() if one} == {
        "self_forcing x dmd",
        "teacher_forcing x l2 (elbo)",
        "diffusion_forcing x l2 (elbo)",
    }


def test_learned_critics_are_counted_and_those_that_are_off_are_named(run, tmp_path):
    said = learned(read_laboratory(run))  # 0.026 from its optimum
    assert said == "With learned critics, 1 of 1 students end within 0.05 of that optimum."
    path = write_laboratory_files(tmp_path) / "verdicts.csv"
    rows = rows_in(tmp_path, "verdicts.csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            changed = {"m": "0.544", "m_half_width": "0.07"} if row["critics"] == "learned" else {}
            writer.writerow({**row, **changed})
    said = learned(read_laboratory(tmp_path))
    assert said.startswith("With learned critics, 0 of 1 students")
    assert "Off are: bidirectional \u00d7 GAN saturating on A by 0.100." in said
    assert "Seeds scatter by more than that: bidirectional \u00d7 GAN saturating on A \u00b1 0.070." in said


def test_what_a_cell_is_good_for_follows_from_the_modes_that_it_keeps(run):
    found = read_laboratory(run)
    by_cell = {row.cell: row for row in found.judged if row.critics == "exact" and row.process in "AD"}
    assert meaning(found, [by_cell["bidirectional-l2_elbo"]]).startswith("Keeps rare modes (1.4 times")
    assert meaning(found, [by_cell["self_forcing-dmd"]]).startswith("In between")
    assert (
        meaning(found, [row for row in found.judged if row.process == "L"])
        == "No advice: measured on processes of one mode alone."
    )
    assert (span([0.951, 0.949]), span([1.0, 2.0])) == ("0.95", "1 to 2")


def test_every_objective_and_cell_has_a_name_of_its_own():
    from pipeline.laboratory.objectives import OBJECTIVES

    for short in (False, True):
        names = [words.objective(name, short=short) for name in OBJECTIVES]
        assert len(set(names)) == len(names)
        cells = [words.cell(name, short=short) for name in default_params().laboratory.cells]
        assert len(set(cells)) == len(cells)


def test_the_made_up_cells_are_cells_of_the_parameters():
    assert set(ENDS) <= set(default_params().laboratory.cells)
