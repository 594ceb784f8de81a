"""The page stands alone, warns where it must, and is the same whenever it is written."""

import base64
import hashlib
import json
import re
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pipeline.grid import Cell
from pipeline.machine import words_of
from pipeline.records import DamagedRecordError
from pipeline.reporting.figures import FILES
from pipeline.reporting.page import write_report
from pipeline.reporting.samples import film, strip

VOID = {"meta", "img", "input", "br"}
WARNING = "profile smoke: these numbers mean nothing"


class Page(HTMLParser):
    """Opens and closes every element, and notes what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(values)
        if tag == "a":
            self.links.append(values["href"])
        if "id" in values:
            self.ids.append(values["id"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_run):
    """reports/ of the default profile, with its report."""
    reports = write_run(tmp_path_factory.mktemp("default"))
    write_report(reports, profile="default")
    return reports


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, write_run):
    """The same of the smoke profile."""
    reports = write_run(tmp_path_factory.mktemp("smoke"), "smoke")
    write_report(reports, profile="smoke")
    return reports


def digests(reports):
    figures = sorted(path.relative_to(reports).as_posix() for path in (reports / "figures").iterdir())
    assert {f"figures/{name}" for name in FILES.values()} <= set(figures)
    names = ["index.html", "grid.csv", *figures]
    return {name: hashlib.sha256((reports / name).read_bytes()).hexdigest() for name in names}


def test_page_is_whole_html(run):
    page = Page((run / "index.html").read_text())
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_page_needs_nothing_but_itself(run):
    text = (run / "index.html").read_text()
    page = Page(text)
    assert page.images
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in page.images)
    assert not page.tags & {"link", "iframe", "object", "video", "base"}
    assert "<script>" in text  # without a source
    assert not re.search(r"<script[^>]", text)
    assert "url(" not in text
    assert "@import" not in text
    outside = [link for link in page.links if not link.startswith(("#", "data:text/csv")) and link != "errata.md"]
    assert outside
    assert "errata.md" in page.links
    assert all(re.fullmatch(r"https://arxiv\.org/abs/[\d.]+", link) for link in outside)
    assert len(re.findall(r"https?://", text)) == len(outside)


def test_page_is_small_enough_to_send(run):
    assert (run / "index.html").stat().st_size < 6_000_000


def test_page_without_a_sweep_says_what_runs_it(run):
    text = (run / "index.html").read_text()
    assert "Cells are not compared yet: python3 -m pipeline sweep does it." in text
    assert "What they minimise is not measured yet: python3 -m pipeline laboratory does it." in text
    assert not {"audit", "cells-compared"} & set(Page(text).ids)


def test_every_figure_offers_its_numbers_and_names_what_makes_it(run):
    text = (run / "index.html").read_text()
    figures = re.findall(r'<figure id="figure-(\w+)">(.*?)</figure>', text, re.DOTALL)
    assert {name for name, _ in figures} == {path.stem for path in (run / "figures").glob("*.svg")}
    for name, content in figures:
        (data,) = re.findall(rf'<a download="{name}.csv" href="data:text/csv;base64,([^"]+)">', content)
        assert base64.b64decode(data) == (run / "figures" / f"{name}.csv").read_bytes()
        assert len((run / "figures" / f"{name}.csv").read_text().splitlines()) > 1
        assert (run / "figures" / f"{name}.png").exists()
        assert "<code>python3 -m pipeline " in content


def test_lineage_names_revision_libraries_and_machine_of_every_unit(run):
    text = (run / "index.html").read_text()
    section = text[text.index('<section id="lineage">') :].split("</section>")[0]
    for path in run.rglob("record.json"):
        record = json.loads(path.read_text())
        assert record["fingerprint"] in section
        assert words_of(record["machine"]) in section
        assert ", ".join(f"{name} {version}" for name, version in sorted(record["versions"].items())) in section


def test_page_without_the_whole_grid_says_what_cells_minimise_and_no_more(run):
    text = (run / "index.html").read_text()
    assert 'id="every-cell"' not in text
    section = text[text.index('<section id="the-grid">') :].split("</section>")[0]
    assert section.count("<table") == 1
    assert "pipeline every-cell</code>" not in section
    assert escape(Cell("self_forcing", "dmd").derived or "") in section


def test_page_tells_why_a_cell_is_left_out(run):
    assert "left out: l2 needs a target" in (run / "index.html").read_text()


def test_page_says_of_whom_bits_are_not_defined_and_why(run):
    text = (run / "index.html").read_text()
    assert len(re.findall(r'<td><span title="(dmd|gan) trains the frames[^"]*">not defined<', text)) == 4
    reason = escape(Cell("self_forcing", "gan").likelihood_undefined or "")
    assert f"<li><strong>not defined</strong> for distill@gan, rollout@gan: {reason}.</li>" in text


def test_page_shows_the_bits_of_every_path_and_marks_the_least(run):
    text = (run / "index.html").read_text()
    section = text[text.index('<section id="bits-per-dimension">') :].split("</section>")[0]
    causal, bidirectional = re.findall(r"<tr><th scope=\"row\">.*?</tr>", section)
    assert "teacher@causal" in causal
    marked = '<td class="best">{} &plusmn; 0.010</td>'
    assert marked.format("3.400") in causal  # lockstep
    assert marked.format("3.300") in bidirectional  # teacher forcing
    assert causal.index("3.500") < causal.index("3.800") < causal.index("3.400")
    assert "<td>0.400 &plusmn; 0.004</td>" in causal
    assert "512 held-out clips of 512 numbers, by chains of 1,024 levels" in section


def test_page_says_which_weights_are_monotone(run):
    text = (run / "index.html").read_text()
    law = "<code>prediction_l2 (prediction flow_velocity)</code> under <code>flow_matching (shift 2.0)</code>"
    assert f"The weight of teacher@causal, teacher@bidirectional, {law}, is monotone: it never rises" in text
    assert f"The weight of the fake score of distill@dmd, rollout@dmd, {law}, is monotone" in text


def test_report_is_the_same_bytes_twice(run, tmp_path, write_run):
    again = write_run(tmp_path)
    write_report(again, profile="default")
    assert digests(again) == digests(run)


def test_smoke_page_warns_on_every_table_and_figure(smoke):
    text = (smoke / "index.html").read_text()
    assert text.count("<table") == text.count("<caption>") == len(re.findall(f"<caption>.*?{WARNING}", text))
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text, re.DOTALL)
    assert captions
    assert all(WARNING in caption for caption in captions)
    assert f'role="alert">{WARNING}' in text


def test_smoke_figures_carry_the_warning_in_red(smoke, run):
    red = (176, 0, 32)
    for reports, expected in ((smoke, True), (run, False)):
        pixels = np.asarray(Image.open(reports / "figures" / "overview.png").convert("RGB")).reshape(-1, 3)
        assert bool((pixels == red).all(axis=1).any()) is expected
        for path in (reports / "figures").glob("*.svg"):
            assert ("#b00020" in path.read_text()) is expected


def test_default_page_warns_of_nothing(run):
    assert "mean nothing" not in (run / "index.html").read_text()


def test_report_refuses_another_profile(run):
    with pytest.raises(DamagedRecordError, match="profile smoke, found: default"):
        write_report(run, profile="smoke")


@pytest.mark.parametrize("name", ["evaluate/rollout-dmd/samples.npz", "features/corruptions.csv"])
def test_report_names_a_damaged_file(reports, name):
    (reports / name).write_bytes(b"family\nnothing")
    with pytest.raises(DamagedRecordError, match=name):
        write_report(reports, profile="default")
    (reports / name).unlink()
    with pytest.raises(DamagedRecordError, match=name):
        write_report(reports, profile="default")


def test_report_shows_fvd_by_a_given_i3d(reports):
    path = reports / "evaluate" / "rollout-dmd" / "record.json"
    record = json.loads(path.read_text())
    record["inputs"]["i3d"] = "5" * 64
    record["metrics"]["fvd_i3d"] = {
        "value": 432.1,
        "floor": 40.0,
        "excess": 392.1,
        "num_clips": 256,
        "checksum": "5" * 64,
    }
    path.write_text(json.dumps(record))
    text = write_report(reports, profile="default").read_text()
    assert "FVD by the given I3D" in text
    assert f"<code>{'5' * 64}</code>" in text


def test_strip_and_film_hold_every_pixel():
    clips = np.random.default_rng(0).integers(0, 256, (3, 5, 1, 4, 6), np.uint8)
    still, moving = strip(clips), film(clips)
    assert still.shape == (3 * 5 - 1, 5 * 7 - 1, 1)
    assert moving.shape == (5 * 4, 3 * 7 - 1, 1)
    for k in range(3):
        for t in range(5):
            assert (still[5 * k : 5 * k + 4, 7 * t : 7 * t + 6, 0] == clips[k, t, 0]).all()
            assert (moving[4 * t : 4 * t + 4, 7 * k : 7 * k + 6, 0] == clips[k, t, 0]).all()
