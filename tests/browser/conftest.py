"""A browser, pages that it watches, and the report as it is written from the tracked results."""

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserType, Page, sync_playwright

PROJECT = Path(__file__).parents[2]
SCREENSHOTS = PROJECT / "work" / "screenshots"
INSIDE = ("file", "data", "blob", "about")  # schemes of what needs no network
NO_BROWSER = (
    "no chromium is on PATH, and Playwright has none: `apt-get install chromium` or `playwright install chromium`"
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xdist_group(name): tests that one worker runs, one after another")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or Playwright's own; of a module, since Playwright keeps an event loop running."""
    with sync_playwright() as playwright:
        opened = launch(playwright.chromium)
        yield opened
        opened.close()


def launch(kind: BrowserType) -> Browser:
    found = shutil.which("chromium")
    if found is None and not Path(kind.executable_path).exists():
        pytest.fail(NO_BROWSER, pytrace=False)
    return kind.launch(executable_path=found, args=["--no-sandbox"])


class Watched:
    """Pages of one test, and what they did that they must not do.

    origin: a server that may be asked. known: console errors that are none of ours, each with the page below it.
    """

    def __init__(self, browser: Browser, *, origin: str = "", known: Collection[str] = ()) -> None:
        self.browser, self.origin, self.known = browser, origin, known
        self.wrong: list[str] = []
        self.contexts: list[Any] = []

    def open(self, address: str, *, width: int = 1440, height: int = 900, **how: Any) -> Page:
        """A page of its own context; how: of Browser.new_context, like color_scheme."""
        context = self.browser.new_context(viewport={"width": width, "height": height}, **how)
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self._said(message.type, message.text, message.location["url"]))
        page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        page.on("requestfailed", lambda request: self._failed(request.url, request.failure))
        page.on("request", lambda request: self._asked(request.url))
        page.goto(address)
        return page

    def _said(self, kind: str, text: str, address: str) -> None:
        said = f"{text} at {address.removeprefix(self.origin)[:200]}"
        if kind == "error" and said not in self.known:
            self.wrong.append(f"console error: {said}")

    def _failed(self, address: str, failure: str | None) -> None:
        if failure != "net::ERR_ABORTED":  # by the page itself, when it goes elsewhere
            self.wrong.append(f"failed request: {address[:200]}: {failure}")

    def _asked(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in INSIDE and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.wrong.append(f"request off the page: {address[:200]}")

    def close(self) -> None:
        """Raises AssertionError where a page did what it must not do."""
        for context in self.contexts:
            context.close()
        assert not self.wrong, "\n".join(self.wrong)


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """Opens pages that must give no error and ask for nothing but themselves; judged at the end of the test."""
    pages = Watched(browser)
    yield pages
    pages.close()


@pytest.fixture(scope="session")
def tracked_reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of reports/, its two pages and their figures written anew from the tracked results."""
    from pipeline.reporting.laboratory.page import write_laboratory
    from pipeline.reporting.page import write_report

    reports = tmp_path_factory.mktemp("tracked") / "reports"
    shutil.copytree(PROJECT / "reports", reports)
    write_laboratory(reports, profile="default")
    write_report(reports, profile="default")
    return reports


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Callable[[Page, str], Path]:
    """Keeps a picture of a page below work/screenshots, and prints its path."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    def kept(page: Page, name: str, **how: Any) -> Path:
        path = SCREENSHOTS / f"{name}.png"
        page.screenshot(path=path, **how)
        print(f"screenshot: {os.path.relpath(path)}")
        return path

    return kept
