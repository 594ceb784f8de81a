"""docs/report.md against the tracked pages: every section and every figure is explained."""

import re

import pytest

from pipeline.unit import PROJECT

TOLD = (PROJECT / "docs" / "report.md").read_text()
LETTERED = re.compile(
    r"(laboratory_map_)[A-Z](?:_\w+)?$|(laboratory_)\w+(_laws|_map)$"
)  # of which the page names one


@pytest.mark.parametrize("name", ["index", "laboratory"])
def test_every_section_and_figure_of_a_page_is_explained(name):
    page = re.sub(r'"data:[^"]*"', '""', (PROJECT / "reports" / f"{name}.html").read_text())
    sections = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert "Every cell" in sections
    assert [title for title in sections if f"### {title}\n" not in TOLD and f"**{title}**" not in TOLD] == []
    figures = {LETTERED.sub(one_of_many, figure) for figure in re.findall(r'<figure id="figure-(\w+)"', page)}
    assert figures
    assert [figure for figure in sorted(figures) if f"`{figure}`" not in TOLD] == []


def one_of_many(match: re.Match[str]) -> str:
    """As the page has it: the map of process A, and all laws and maps of the questions by a star."""
    return "laboratory_map_A" if match[1] else f"laboratory_*{match[3]}"
