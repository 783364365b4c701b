"""The page of the service in a real browser against a real server: paste, drop, look; keyboard, phone, dark; text of strangers stays text.

SCREENSHOTS=folder keeps a picture of each view for a reader.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from causalroute.serving.http.application import create
from causalroute.serving.http.limits import Limits
from tests.unit.fake_predictor import FakePredictor
from tests.unit.service import picture

pytestmark = pytest.mark.slow

TEXT = "what a lovely monday 😀 #monday"
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script> lovely #<b>x</b>'
MORE = ("anger", "joy", "fear", "pride", "love", "trust", "awe", "calm")


class Served:
    """A server in a thread."""

    def __init__(self, model: FakePredictor, limits: Limits) -> None:
        import uvicorn

        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        self.server = uvicorn.Server(uvicorn.Config(create(model, limits), log_config=None, access_log=False))
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve(sockets=[self.listener])))

    def __enter__(self) -> str:
        self.thread.start()
        while not self.server.started or httpx.get(f"{self.address}readyz").status_code != 200:
            time.sleep(0.01)
        return self.address

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.listener.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with Served(FakePredictor(), Limits(text=2000, body=200_000)) as found:
        yield found


def keep(page: Any, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        page.wait_for_timeout(300)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def opened(page: Any, address: str) -> Any:
    page.goto(address)
    page.wait_for_selector("#examples button")
    page.wait_for_function("() => document.getElementById('card').textContent")
    return page


def answered(page: Any) -> None:
    page.wait_for_selector("#result:not([hidden])")
    page.wait_for_function("() => !document.getElementById('go').hasAttribute('aria-disabled')")


def clean(page: Any, address: str) -> None:
    assert page.seen.errors == []
    assert {url[: len(address)] for url in page.seen.requests} == {address}


def dropped(page: Any, data: bytes) -> None:
    """Drops a file on the field, as a mouse would."""
    page.evaluate(
        """([encoded]) => {
          const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], "a.png", { type: "image/png" }));
          for (const kind of ["dragover", "drop"]) {
            document.getElementById("drop").dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
          }
        }""",
        [base64.b64encode(data).decode()],
    )


def veiled(page: Any, x: float, y: float) -> int:
    """Opacity of the veil over the picture at a place in fractions of its sides."""
    script = "([x, y]) => { const c = document.querySelector('canvas'); return c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data[3]; }"
    page.wait_for_function("() => document.querySelector('canvas')?.width > 0")
    return int(page.evaluate(script, [x, y]))


def test_paste_a_text_and_drop_a_picture(page, address) -> None:
    opened(page, address).fill("#text", TEXT)
    dropped(page, picture("orange", (300, 150)))
    page.wait_for_selector("#preview:not([hidden])")
    page.click("#go")
    answered(page)
    assert page.inner_text("#said").startswith(
        "The hashtag #monday and the background speak for literal; with their direct effect removed the post reads as sarcastic"
    )
    cards = page.locator(".verdict")
    assert [card.inner_text().split("\n")[:3:2] for card in cards.all()] == [["Biased (erm)", "literal"], ["Debiased (causal_moe)", "sarcastic"]]
    left, right = (cards.nth(i).bounding_box() for i in range(2))
    assert left["y"] == right["y"], "side by side"
    widths = [bar.bounding_box()["width"] for bar in cards.nth(1).locator(".fill").all()]
    assert widths[1] > 10 * widths[0] > 0
    assert "95.3 %" in cards.nth(1).inner_text()
    effects = page.locator(".effects li:has(.fill)")
    assert [row.locator(".value").inner_text() for row in effects.all()][:2] == ["0.00", "1.50 for literal"]
    assert page.locator(".words mark").all_text_contents() == ["context: #monday"]
    assert "😀" in page.text_content(".words")
    assert (veiled(page, 0.05, 0.05) > 100, veiled(page, 0.45, 0.4)) == (True, 0)
    assert page.locator("#why img").get_attribute("alt") == "the picture of the post; its core covers 31 % of it"
    keep(page, "answer")
    page.uncheck(".check input")
    assert not page.is_visible("canvas")
    clean(page, address)


def test_choose_a_file_and_take_it_away(page, address) -> None:
    opened(page, address).set_input_files("#image", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": picture("blue", kind="JPEG")})
    page.click("#go")
    answered(page)
    assert "The background speaks for sarcastic" in page.inner_text("#said")
    page.click("#remove")
    assert page.evaluate("document.activeElement.id") == "image"
    page.fill("#text", "grim")
    page.click("#go")
    page.wait_for_selector("#warnings li")
    assert page.inner_text("#warnings") == "no image: the reference image stands in"
    assert page.locator("canvas").count() == 0
    clean(page, address)


def test_every_example_is_answered_at_once(page, address) -> None:
    opened(page, address)
    for button in page.locator("#examples button").all():
        with page.expect_response(re.compile("v1/predict")) as response:
            button.click()
        assert response.value.status == 200
        answered(page)
        assert page.input_value("#text") in page.text_content(".words").replace("context: ", "")
    clean(page, address)


def test_the_keyboard_is_enough(page, address) -> None:
    opened(page, address)
    places = []
    for _ in range(12):
        page.keyboard.press("Tab")
        places.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        if places[-1] == "text":
            page.keyboard.type("a lovely day #x")
        if places[-1] == "go":
            break
    assert places == [*["BUTTON"] * 5, "text", "image", "go"]
    page.keyboard.press("Enter")
    answered(page)
    assert "#x" in page.inner_text("#said")
    assert page.evaluate("document.activeElement.id") == "go", "the focus stays where it was"
    page.focus("#text")
    page.keyboard.type(" #y")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("() => document.getElementById('said').textContent.includes('#y')")
    assert page.locator("#said").get_attribute("role") == "status"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    clean(page, address)


def test_markup_stays_text(page, address) -> None:
    opened(page, address)
    before = page.title()
    page.fill("#text", HOSTILE)
    page.keyboard.press("Control+Enter")
    answered(page)
    page.wait_for_timeout(200)
    assert page.text_content(".words").replace("context: ", "") == HOSTILE
    assert page.title() == before
    assert page.locator("#result script, #result img, .words b").count() == 0
    clean(page, address)


def test_errors_are_told(page, address) -> None:
    opened(page, address)
    for text, file, told in (
        ("", None, "the post is empty"),
        ("x" * 2001, None, "2001 characters"),
        ("x", b"no image", "not an image"),
        ("x", b"0" * 300_000, "too large"),
    ):
        page.fill("#text", text)
        if file:
            page.set_input_files("#image", {"name": "a.png", "mimeType": "image/png", "buffer": file})
        page.click("#go")
        page.wait_for_function("told => document.getElementById('alert').textContent.includes(told)", arg=told)
        assert page.locator("#alert").get_attribute("role") == "alert"
        assert not page.is_visible("#result")
    keep(page, "error")
    page.click("#remove")
    page.click("#go")
    answered(page)
    assert not page.is_visible("#alert")


@pytest.mark.parametrize(("name", "width", "scheme"), [("phone", 360, "light"), ("phone-dark", 360, "dark"), ("tablet", 800, "light"), ("dark", 1280, "dark")])
def test_phone_tablet_and_dark(page, address, name, width, scheme) -> None:
    page.set_viewport_size({"width": width, "height": 780})
    page.emulate_media(color_scheme=scheme)
    opened(page, address).fill("#text", "w" * 300 + " lovely #tag")
    dropped(page, picture("orange", (900, 200)))
    page.click("#go")
    answered(page)
    page.wait_for_selector("canvas")
    page.click("#about summary")
    keep(page, name)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", shade)[:3])) < 150) == (scheme == "dark")
    assert page.locator("#answer").bounding_box()["y"] < 780 / 2, "the answer is in sight"
    clean(page, address)


def test_the_documentation_needs_no_other_host(page, address) -> None:
    page.goto(f"{address}docs")
    page.wait_for_selector(".operation")
    assert page.locator(".operation").count() == 8
    page.click(".operation summary >> nth=0")
    assert "multipart/form-data" in page.inner_text(".operation >> nth=0")
    assert f"curl {address}v1/predict -F" in page.inner_text("#commands")
    keep(page, "docs")
    clean(page, address)


def test_many_classes_and_attribute_words(page) -> None:
    model = FakePredictor(classes=("neutral", "surprise", *MORE), visual="attributes", reference="", results={})
    with Served(model, Limits()) as address:
        opened(page, address).fill("#text", "lovely #x")
        assert not page.is_visible("#drop")
        page.fill("#attributes", "beach, sunset")
        page.click("#go")
        answered(page)
        assert page.locator(".verdict").count() == page.locator(".debiased").count() == 1
        assert "and 2 more" in page.inner_text(".verdict >> nth=0")
        assert page.locator(".effects .whole").count() == 5
        keep(page, "classes")
        clean(page, address)
