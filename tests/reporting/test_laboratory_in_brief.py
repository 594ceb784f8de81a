"""The first section of the report: what the laboratory found, in brief."""

import csv
import re
from html import unescape

from pipeline.grid import Cell, cells
from pipeline.reporting.laboratory.brief import claims_of, claims_table, in_brief
from pipeline.reporting.laboratory.page import write_laboratory
from pipeline.reporting.laboratory.results import read_laboratory
from pipeline.reporting.page import write_report
from pipeline.reporting.read import read_study
from tests.laboratory_files import write_laboratory_files

WARNING = "profile smoke: these numbers mean nothing"


def test_the_report_opens_with_the_laboratory_and_keeps_its_figures(reports):
    write_laboratory_files(reports)
    write_laboratory(reports, profile="default")
    before = {path.name: path.read_bytes() for path in (reports / "figures").iterdir()}
    text = write_report(reports, profile="default").read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles[:3] == ["Samples", "Drift", "What each cell minimises"]
    brief = text.split('<section id="what-each-cell-minimises">')[1].split("</section>")[0]
    assert '<a href="laboratory.html">' in brief
    assert (brief.count("<table"), brief.count("<figure")) == (1, 1)
    with (reports / "laboratory" / "claims.csv").open(newline="") as file:
        num_claims = len({row["claim"] for row in csv.DictReader(file)})
    assert brief.count("<tr") == 1 + num_claims
    for name, content in before.items():
        assert (reports / "figures" / name).read_bytes() == content


def test_a_laboratory_of_another_profile_says_so_in_the_report(reports):
    write_laboratory_files(reports, processes=("A",), profile="smoke")
    said = "\n".join(
        in_brief(read_study(reports), read_laboratory(reports), reports / "figures")["What each cell minimises"]
    )
    assert "This laboratory is of profile smoke, this page is of default" in said
    assert said.count(WARNING) >= 2


def test_claims_of_a_cell_are_those_of_the_table_of_claims(tmp_path):
    write_laboratory_files(tmp_path)
    found = read_laboratory(tmp_path)
    by_cell = {cell: claims_of(found, cell) for cell in cells()}
    assert {cell for cell, said in by_cell.items() if said} == {found.place(row.cell) for row in found.judged}
    every = [one for said in by_cell.values() for one in said if one.claimed]
    table = claims_table(found)
    assert len(every) == table.count("<tr>") - 1
    for one in every:
        assert all(words in unescape(table) for words in (one.claimed, *one.minimises))
    for reading, verdict in (("table", "by_table"), ("text", "by_text")):
        told = sorted(claim.verdict for claim in found.claims if claim.reading == reading)
        assert sorted(vars(one)[verdict] for one in every) == told


def test_claims_of_a_cell_tell_its_settings_apart(tmp_path):
    write_laboratory_files(tmp_path)
    found = read_laboratory(tmp_path)
    elbo, flow = claims_of(found, Cell("bidirectional", "l2"))
    assert (elbo.setting, elbo.claimed, elbo.by_table) == ("ELBO weights", "forward KL", "confirmed")
    assert (flow.setting, flow.claimed, flow.by_table) == ("flow weights", "forward KL", "refuted")
    adversarial = {one.setting: one for one in claims_of(found, Cell("bidirectional", "gan"))}
    assert set(adversarial) == {"saturating", "non-saturating"}
    assert adversarial["non-saturating"].minimises == ("noise-averaged softened reverse KL",)
    assert {(one.claimed, one.by_table, one.by_text) for one in adversarial.values()} == {("", "", "")}
    (dmd,) = claims_of(found, Cell("self_forcing", "dmd"))
    assert (dmd.setting, dmd.by_table, dmd.derivation) == ("", "refuted", "confirmed")
    assert claims_of(found, Cell("self_forcing", "gan")) == []
