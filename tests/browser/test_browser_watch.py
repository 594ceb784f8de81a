"""What a page must not do is seen; and who has no browser is told what to install."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.browser import conftest
from tests.browser.conftest import Watched, launch

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

LOUD = """<!doctype html><title>loud</title>
<script>console.error("said"); setTimeout(() => { throw Error("thrown") })</script>
<img src="http://127.0.0.1:9/far.png"><img src="near.png">"""


def test_errors_and_requests_of_a_page_are_seen(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "loud.html"
    path.write_text(LOUD)
    pages = Watched(browser, known=["said at " + path.as_uri()])
    page = pages.open(path.as_uri())
    page.wait_for_function("() => document.images[0].complete && document.images[1].complete")
    with pytest.raises(AssertionError, match="request off the page"):
        pages.close()
    seen = "\n".join(pages.wrong)
    assert "page error: thrown" in seen
    assert "request off the page: http://127.0.0.1:9/far.png" in seen
    assert "failed request: http://127.0.0.1:9/far.png" in seen
    assert f"failed request: {(tmp_path / 'near.png').as_uri()}: net::ERR_FILE_NOT_FOUND" in seen
    assert "console error: said" not in seen  # which is known


def test_without_a_browser_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(conftest.shutil, "which", lambda _: None)
    absent: Any = SimpleNamespace(executable_path=str(tmp_path / "chromium"))
    with pytest.raises(pytest.fail.Exception, match=r"apt-get install chromium.*playwright install chromium"):
        launch(absent)
