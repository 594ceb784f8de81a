"""The first section of the report: what the laboratory found, in brief."""

import csv
import re

from pipeline.reporting.laboratory.brief import in_brief
from pipeline.reporting.laboratory.page import write_laboratory
from pipeline.reporting.page import write_report
from pipeline.reporting.read import read_study
from tests.laboratory_files import write_laboratory_files

WARNING = "profile smoke: these numbers mean nothing"


def test_the_report_opens_with_the_laboratory_and_keeps_its_figures(reports):
    study = read_study(reports)
    assert in_brief(study, reports) == {}
    write_laboratory_files(reports)
    write_laboratory(reports, profile="default")
    before = {path.name: path.read_bytes() for path in (reports / "figures").iterdir()}
    text = write_report(reports, profile="default").read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles[:2] == ["What each cell minimises", "Results"]
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
    said = "\n".join(in_brief(read_study(reports), reports)["What each cell minimises"])
    assert "This laboratory is of profile smoke, this page is of default" in said
    assert said.count(WARNING) >= 2
