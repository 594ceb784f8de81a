"""The report and the page of the laboratory, opened from disk in a browser: quiet, readable, complete."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from pipeline.grid import Cell
from pipeline.reporting.page import write_report
from pipeline.reporting.sweep_read import name_of
from tests.browser.conftest import Watched
from tests.reporting import sweep_files

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

PAGES = ("index.html", "laboratory.html")
SIZES = {"phone": (390, 844), "desk": (1440, 900)}
PAPER = (718, 1047)  # CSS pixels of A4 within Chromium's margins of 1 cm
LEAST_FONT = 12.0  # CSS pixels
LEAST_CONTRAST = 4.5  # WCAG 2.2, success criterion 1.4.3, of text of ordinary size
HEAVIEST, NUM_CELLS = 8_000_000, 20  # bytes of a page, also of one of so many cells
HEAVIEST_DATA = 200_000  # bytes of the data of a figure

# Text that is seen, each element once with its size and its contrast: WCAG 2.2, "relative luminance".
READ_TEXT = """
(selector) => {
  const parse = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return { rgb: [r, g, b], a };
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { rgb, a } = parse(getComputedStyle(at).backgroundColor);
      if (a === 1) return rgb;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll(selector)) {
    const nodes = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
    const own = nodes.map((node) => node.data).join("").trim();
    if (!own || !element.checkVisibility({ visibilityProperty: true })) continue;
    const style = getComputedStyle(element), front = luminance(parse(style.color).rgb);
    const back = luminance(behind(element)), [light, dark] = front > back ? [front, back] : [back, front];
    found.push({ tag: element.tagName.toLowerCase(), text: own.slice(0, 60), size: parseFloat(style.fontSize),
                 contrast: (light + 0.05) / (dark + 0.05) });
  }
  return found;
}
"""
TEXT = "body, body *:not(script, style, option)"
WIDTHS = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
# Parts that reach beyond the page, but for those inside what scrolls by itself: they name what is too wide.
TOO_WIDE = """
() => [...document.querySelectorAll("body *")].filter((element) => {
  if (element.getBoundingClientRect().right <= document.documentElement.clientWidth + 1) return false;
  for (let at = element.parentElement; at; at = at.parentElement)
    if (getComputedStyle(at).overflowX !== "visible") return false;
  return true;
}).map((element) => element.outerHTML.slice(0, 80))
"""


def assert_no_overflow(page: Page) -> None:
    scroll, client = page.evaluate(WIDTHS)
    assert scroll <= client, (scroll, client, page.evaluate(TOO_WIDE)[:5])


def assert_readable(page: Page) -> None:
    texts: list[dict[str, Any]] = page.evaluate(READ_TEXT, TEXT)
    assert {"p", "li", "td", "figcaption"} <= {text["tag"] for text in texts}
    assert [text for text in texts if text["size"] < LEAST_FONT] == []
    assert [text for text in texts if text["contrast"] < LEAST_CONTRAST] == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_quiet_and_readable_in_light_and_in_dark(
    watched: Watched, tracked_reports: Path, keep: Callable[..., Path], name: str, size: str
) -> None:
    width, height = SIZES[size]
    page = watched.open((tracked_reports / name).as_uri(), width=width, height=height, reduced_motion="reduce")
    papers = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert_no_overflow(page)
        assert_readable(page)
        papers.add(page.evaluate("() => getComputedStyle(document.body).backgroundColor"))
        keep(page, f"{Path(name).stem}_{size}_{scheme}", full_page=True)
    assert len(papers) == 2
    print("milliseconds to load:", page.evaluate("() => performance.getEntriesByType('navigation')[0].duration"))


@pytest.mark.parametrize("name", PAGES)
def test_a_printed_page_is_dark_on_white_and_shows_no_controls(
    watched: Watched, tracked_reports: Path, keep: Callable[..., Path], name: str
) -> None:
    width, height = PAPER
    page = watched.open((tracked_reports / name).as_uri(), width=width, height=height, color_scheme="dark")
    page.emulate_media(media="print", reduced_motion="reduce")
    assert_no_overflow(page)
    texts = page.evaluate(READ_TEXT, TEXT)
    assert [text for text in texts if text["contrast"] < LEAST_CONTRAST] == []
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav, #player button, .source a").filter(visible=True).all()
    keep(page, f"{Path(name).stem}_print", full_page=True)


@pytest.mark.parametrize("name", PAGES)
def test_every_figure_is_drawn_and_offers_the_data_of_its_file(
    watched: Watched, tracked_reports: Path, name: str
) -> None:
    page = watched.open((tracked_reports / name).as_uri(), reduced_motion="reduce")
    figures = page.locator("figure:has(img.drawn)")
    assert figures.count() > 5
    for figure in figures.all():
        assert figure.locator("img.drawn").evaluate("(image) => image.complete && image.naturalWidth > 100")
        link = figure.locator("a[download]")
        path = tracked_reports / "figures" / str(link.get_attribute("download"))
        assert path.stem == str(figure.get_attribute("id")).removeprefix("figure-")
        kind, _, content = str(link.get_attribute("href")).partition(",")
        assert kind == "data:text/csv;base64"
        assert base64.b64decode(content) == path.read_bytes()
        assert len(path.read_text().splitlines()) > 1
        assert path.stat().st_size < HEAVIEST_DATA, path.name
        assert str(figure.locator(".source code").text_content()).startswith("python3 -m pipeline ")
    written = {path.stem for path in (tracked_reports / "figures").glob("*.csv")}
    of_laboratory = {stem for stem in written if stem.startswith("laboratory_")}
    shown = {str(figure.get_attribute("id")).removeprefix("figure-") for figure in figures.all()}
    assert shown - of_laboratory == (set() if name == "laboratory.html" else written - of_laboratory)
    assert name == "index.html" or shown == of_laboratory


@pytest.mark.parametrize("name", PAGES)
def test_data_of_a_figure_are_saved_as_a_file(watched: Watched, tracked_reports: Path, name: str) -> None:
    page = watched.open((tracked_reports / name).as_uri(), reduced_motion="reduce")
    with page.expect_download() as started:
        page.locator("figure a[download]").first.click()
    saved = started.value
    assert saved.path().read_bytes() == (tracked_reports / "figures" / saved.suggested_filename).read_bytes()


@pytest.mark.parametrize("name", PAGES)
def test_the_tracked_pages_are_light_enough(tracked_reports: Path, name: str) -> None:
    weight = (tracked_reports / name).stat().st_size
    print(f"{name}: {weight / 1e6:.2f} MB")
    assert weight < HEAVIEST


def test_a_report_of_twenty_cells_is_light_enough(
    watched: Watched, tracked_reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is tracked, but a made-up sweep, whose clips are noise, which nothing makes smaller."""
    more = {"add": 1.2, "f_distill": 1.05}
    monkeypatch.setattr(sweep_files, "LOSSES", (*sweep_files.LOSSES, *more))
    monkeypatch.setattr(sweep_files, "OF_LOSS", {**sweep_files.OF_LOSS, **more})
    methods = ("self_forcing", "diffusion_forcing", "teacher_forcing", "bidirectional")
    product = ((method, loss) for loss in sweep_files.LOSSES for method in methods)
    cells = [cell for cell in product if "-".join(cell) not in sweep_files.EXCLUDED][:NUM_CELLS]
    reports = tmp_path / "reports"
    shutil.copytree(tracked_reports, reports, ignore=shutil.ignore_patterns("grid", "figures"))
    codec = json.loads((tracked_reports / "grid" / "run.json").read_text())["codec"]
    sweep_files.write_sweep(reports, codec=codec, cells=tuple(cells))
    path = write_report(reports, profile="default")
    print(f"{NUM_CELLS} cells: {path.stat().st_size / 1e6:.2f} MB")
    assert path.stat().st_size < HEAVIEST
    page = watched.open(path.as_uri(), reduced_motion="reduce")
    names = page.locator(".cards strong").all_inner_texts()
    assert {name_of(Cell(*cell)) for cell in cells} <= set(names)
    assert_no_overflow(page)
