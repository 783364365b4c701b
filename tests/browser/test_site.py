"""The documentation site as a reader sees it: nothing fails, nothing is fetched from elsewhere, and it fits a phone."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None: ...


@pytest.fixture(scope="module")
def address(browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "tutorial/", "concepts/", "architecture/", "evaluation/", "reference/api/"])
def test_a_page_needs_nothing_from_elsewhere_and_fits(page, address: str, name: str) -> None:
    page.goto(address + name)
    page.wait_for_load_state("networkidle")
    assert page.locator("h1").count() == 1
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert [request for request in page.seen.requests if not request.startswith(address)] == []
    assert page.seen.errors == []


@pytest.mark.slow
def test_the_search_finds_a_setting(page, address: str) -> None:
    page.goto(address)
    page.wait_for_load_state("networkidle")
    page.locator("input[name=query]").press_sequentially("context_hidden", delay=20)  # keys: a text set at once may come before the index listens
    page.locator(".md-search-result__link").first.wait_for()
    assert "methods" in page.locator(".md-search-result__link").first.get_attribute("href")
    assert page.seen.errors == []
