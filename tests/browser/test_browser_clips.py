"""The player and the tables of the report, used as a person uses them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Watched

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

AT_ONCE = 20_000  # milliseconds that a clip may need to move on, far more than it does
# Which frame each film shows: how far its strip is moved up, in units of the height of a frame.
FRAMES = """
() => [...document.querySelectorAll(".film")].map((film) => {
  const moved = new DOMMatrix(getComputedStyle(film.querySelector("img")).transform).m42;
  return Math.round(-1000 * moved / film.clientHeight) / 1000 + 0;  // no -0
})
"""
NEXT = "(before) => document.getElementById('at').textContent !== before"


@pytest.fixture
def clips(watched: Watched, tracked_reports: Path) -> Callable[..., Page]:
    """Opens the report, its films moving or, for who wants no motion, standing."""

    def opened(motion: str = "no-preference") -> Page:
        page = watched.open((tracked_reports / "index.html").as_uri(), reduced_motion=motion)
        assert page.locator(".film").count() > 10
        return page

    return opened


def number(page: Page) -> int:
    """Of the frame that the player says it shows."""
    said = re.match(r"frame (\d+) of (\d+)", " ".join(page.locator("#at").inner_text().split()))
    assert said
    assert page.locator("#frame").input_value() == said[1]
    assert page.locator("#frame").get_attribute("max") == said[2]
    return int(said[1])


def assert_in_step(page: Page, shown: int) -> None:
    assert set(page.evaluate(FRAMES)) == {shown - 1}


def test_clips_run_by_themselves_and_stand_after_pause(clips: Callable[..., Page]) -> None:
    page = clips()
    for _ in range(3):
        page.wait_for_function(NEXT, arg=page.locator("#at").inner_text(), timeout=AT_ONCE)
    assert page.locator("#play").inner_text() == "pause"
    assert page.locator("#play").get_attribute("aria-pressed") == "true"
    page.locator("#play").click()
    assert page.locator("#play").inner_text() == "play"
    assert page.locator("#play").get_attribute("aria-pressed") == "false"
    before = number(page)
    page.wait_for_timeout(1000)
    assert number(page) == before
    assert_in_step(page, before)
    page.locator("#play").click()
    page.wait_for_function(NEXT, arg=page.locator("#at").inner_text(), timeout=AT_ONCE)


def test_clips_step_forward_and_back_and_wrap_in_step(clips: Callable[..., Page]) -> None:
    page = clips("reduce")
    last = int(str(page.locator("#frame").get_attribute("max")))
    assert number(page) == 1
    page.locator("#back").click()
    assert number(page) == last
    assert_in_step(page, last)
    page.locator("#forward").click()
    assert number(page) == 1
    for shown in range(2, last + 1):
        page.locator("#forward").click()
        assert number(page) == shown
        assert_in_step(page, shown)
    page.locator("#back").click()
    assert number(page) == last - 1


def test_clips_follow_the_slider(clips: Callable[..., Page]) -> None:
    page = clips()
    page.locator("#frame").fill("5")
    assert number(page) == 5
    assert_in_step(page, 5)
    assert page.locator("#play").inner_text() == "play"  # who chooses a frame wants to see it
    page.locator("#frame").press("ArrowRight")
    assert number(page) == 6


def test_clips_stand_for_who_wants_no_motion(clips: Callable[..., Page]) -> None:
    page = clips("reduce")
    page.wait_for_timeout(1000)
    assert number(page) == 1
    assert page.locator("#play").inner_text() == "play"
    page.locator("#play").click()
    page.wait_for_function(NEXT, arg="frame 1 of", timeout=AT_ONCE)


def test_films_show_other_pixels_at_another_frame(clips: Callable[..., Page], keep: Callable[..., Path]) -> None:
    page = clips("reduce")
    films = page.locator(".film")
    shown: dict[tuple[int, int], bytes] = {}
    for frame in (1, 12):
        page.locator("#frame").fill(str(frame))
        for film in (0, films.count() - 1):
            shown[film, frame] = films.nth(film).screenshot()
        keep(page, f"clips_frame_{frame}")
    assert len(set(shown.values())) == len(shown)


def test_films_have_frames_of_their_own_height(clips: Callable[..., Page]) -> None:
    """Else a strip moved by whole frames would show parts of two."""
    page = clips("reduce")
    heights = page.locator(".film").evaluate_all(
        "(films) => films.map((film) => film.querySelector('img').clientHeight / film.clientHeight)"
    )
    last = int(str(page.locator("#frame").get_attribute("max")))
    assert set(heights) == {last}


def key(text: str) -> float | str | None:
    """What a field is sorted by: the number that it begins with, k for thousands; a text; nothing for a dash."""
    plain = text.strip().replace(",", "").replace("\u2212", "-")
    found = re.match(r"-?\d+(\.\d+)?(e[-+]?\d+)?(k?)", plain)
    if found:
        return float(found[0].rstrip("k")) * (1000 if found[3] else 1)
    return None if plain in ("", "\u2013") else plain


def is_ordered(values: list[float | str | None], *, ascending: bool) -> bool:
    """Numbers, then texts, each in order, then what is nothing."""
    kinds = [0 if isinstance(value, float) else 1 if isinstance(value, str) else 2 for value in values]
    numbers = [value for value in values if isinstance(value, float)]
    return kinds == sorted(kinds) and numbers == sorted(numbers, reverse=not ascending)


# Clicks every head twice; of each click: table, column, the order that is said, of how many heads, fields, rows.
CLICK_HEADS = """
() => [...document.querySelectorAll("table.sortable")].flatMap((table, number) => {
  const heads = [...table.tHead.rows[0].cells], rows = () => [...table.tBodies[0].rows];
  return heads.flatMap((head, column) => head.querySelector("button") ? [1, 2].map(() => {
    head.querySelector("button").click();
    return { table: number, column, said: head.ariaSort, heads: heads.filter((one) => one.ariaSort).length,
             fields: rows().map((row) => row.cells[column].innerText), rows: rows().map((row) => row.innerText) };
  }) : []);
})
"""


def test_every_table_sorts_by_a_click_on_a_head_and_back_by_another(
    watched: Watched, tracked_reports: Path
) -> None:
    page = watched.open((tracked_reports / "index.html").as_uri(), reduced_motion="reduce")
    before = page.locator("table.sortable").evaluate_all(
        "(tables) => tables.map((table) => [...table.tBodies[0].rows].map((row) => row.innerText))"
    )
    assert len(before) > 3
    clicks: list[dict[str, Any]] = page.evaluate(CLICK_HEADS)
    assert {click["table"] for click in clicks} == set(range(len(before)))
    for up, down in zip(clicks[::2], clicks[1::2], strict=True):
        assert (up["said"], down["said"]) == ("ascending", "descending")
        assert up["heads"] == down["heads"] == 1
        assert is_ordered([key(text) for text in up["fields"]], ascending=True), up["fields"]
        assert is_ordered([key(text) for text in down["fields"]], ascending=False), down["fields"]
        assert sorted(up["rows"]) == sorted(down["rows"]) == sorted(before[up["table"]])  # none is lost
        assert up["rows"] != down["rows"] or len(set(up["fields"])) == 1


def test_a_head_is_clicked_and_pressed(watched: Watched, tracked_reports: Path, keep: Callable[..., Path]) -> None:
    page = watched.open((tracked_reports / "index.html").as_uri(), reduced_motion="reduce")
    table = page.locator("table.sortable").first
    head = table.locator("thead th:has(button)").nth(2)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    keep(page, "table_sorted")
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    values = [key(text) for text in table.locator("tbody tr > :nth-child(3)").all_inner_texts()]
    assert len([value for value in values if isinstance(value, float)]) > 5
    assert is_ordered(values, ascending=False)
