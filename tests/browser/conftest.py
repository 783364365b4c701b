"""A real browser, headless: the Chromium of this system, driven by playwright. Tests that need it are skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
SANDBOX = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []  # Chromium refuses to start as root with one


@dataclass
class Seen:
    """What went on while a page was open."""

    errors: list[str] = field(default_factory=list)
    """console errors, uncaught exceptions and failed requests"""
    requests: list[str] = field(default_factory=list)
    """addresses asked for, but those of the page's own scheme `data:`"""


@pytest.fixture(scope="module")  # no longer: while playwright is open, its event loop runs in this thread, and no other may
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this system (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *SANDBOX])
        yield opened
        opened.close()


@pytest.fixture
def page(browser) -> Iterator:
    """An empty page; `page.seen` says what it did wrong and what it asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.seen = Seen()
    opened.on("console", lambda message: opened.seen.errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: opened.seen.errors.append(str(error)))
    opened.on("requestfailed", lambda request: opened.seen.errors.append(f"failed: {request.url}"))
    opened.on("request", lambda request: None if request.url.startswith(("data:", "blob:")) else opened.seen.requests.append(request.url))
    yield opened
    context.close()
