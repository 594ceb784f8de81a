"""The page of errata names the tests that show them: each exists, and none is left out."""

import re
from pathlib import Path

HERE = Path(__file__)
PAGE = (HERE.parents[2] / "reports/errata.md").read_text()


def shown() -> set[str]:
    files = [path for path in HERE.parent.glob("test_*.py") if path != HERE]
    return set(re.findall(r"^def (test_\w+)", "\n".join(path.read_text() for path in files), re.MULTILINE))


def test_errata_page_names_every_test_of_an_erratum_and_no_other():
    assert set(re.findall(r"`(test_\w+)`", PAGE)) == shown()


def test_errata_page_names_the_file_of_every_document():
    assert {path.name for path in HERE.parent.glob("test_*.py")} - {HERE.name} == set(
        re.findall(r"`tests/errata/(test_\w+\.py)`", PAGE)
    )


def test_errata_page_links_to_headings_that_exist():
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = set(re.findall(r"\]\(#([^)]*)\)", PAGE))
    assert links - anchors == set()
    assert len(links) >= 10
