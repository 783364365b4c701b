"""The service: every route, what it refuses and how, and what it never tells."""

from __future__ import annotations

import logging
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.fake_predictor import BROKEN, UNUSABLE, FakePredictor
from tests.unit.service import ask, client, encoded, metric, picture, run

from causalroute.errors import UserError
from causalroute.serving.http.application import create
from causalroute.serving.http.examples import gather
from causalroute.serving.http.limits import Limits
from causalroute.serving.http.pages import STATIC

TEXT = "what a lovely monday 😀 #monday"
PREDICT, BATCH = "/v1/predict", "/v1/predict/batch"


def refused(answer: httpx.Response, status: int) -> dict[str, str]:
    told: dict[str, str] = answer.json()
    assert answer.status_code == status, told
    assert set(told) == {"error", "where", "fix"}
    assert told["error"]
    return told


def bomb(side: int = 50_000) -> bytes:
    """A PNG of a few hundred bytes that says it has `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_json_and_form_give_the_same_answer() -> None:
    async def both(found: httpx.AsyncClient) -> tuple[Any, Any]:
        json = await found.post(PREDICT, json={"text": TEXT, "image": encoded(picture())})
        form = await found.post(PREDICT, data={"text": TEXT}, files={"image": ("photo.png", picture())})
        return json.json(), form.json()

    json, form = run(both)
    assert json == form
    assert (json["label"], json["biased_label"], json["explanation"], json["sentence"], json["warnings"]) == ("sarcastic", "literal", None, None, [])
    assert sum(json["probabilities"].values()) == pytest.approx(1)


def test_an_explanation_on_request() -> None:
    told = ask("POST", f"{PREDICT}?explain=true", sent={"json": {"text": TEXT, "image": encoded(picture())}}).json()
    why = told["explanation"]
    assert set(why["effects"]) == {"TE", "NDE_text", "NDE_image", "NDE_both", "TIE"}
    assert [word["text"] for word in why["words"] if word["context"]] == ["#monday"]
    assert all(TEXT[word["start"] : word["end"]] == word["text"] for word in why["words"])
    assert (why["region"]["side"], len(why["region"]["core"]), why["experts"][1]) == (8, 8, ["text 1", 0.8])
    assert told["sentence"].startswith("The hashtag #monday and the background speak for literal; with their direct effect removed the post reads as sarcastic")


def test_a_batch_keeps_its_order_and_is_one_call() -> None:
    model = FakePredictor()
    posts = [{"text": "lovely"}, {"text": "x"}, {"image": encoded(picture("blue"))}, {"text": TEXT}]
    told = ask("POST", BATCH, model, sent={"json": posts}).json()["predictions"]
    assert [one["label"] for one in told] == ["sarcastic", "literal", "literal", "sarcastic"]
    assert model.calls == [4]


def test_line_ends_of_forms_are_what_was_typed() -> None:
    told = ask("POST", f"{PREDICT}?explain=1", sent={"files": {"text": (None, "one\r\ntwo #x")}}).json()
    assert [(word["start"], word["end"]) for word in told["explanation"]["words"]] == [(0, 3), (4, 7), (8, 10)]


def test_an_empty_file_field_is_no_image() -> None:
    boundary = 'x\r\nContent-Disposition: form-data; name="image"; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n\r\n--x'
    body = f'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nhello\r\n--{boundary}--\r\n'
    told = ask("POST", PREDICT, sent={"content": body.encode(), "headers": {"Content-Type": "multipart/form-data; boundary=x"}})
    assert told.json()["warnings"] == ["no image: the reference image stands in"]


@pytest.mark.parametrize(
    ("status", "where", "path", "sent"),
    [
        (400, "body", PREDICT, {"content": b"{", "headers": {"Content-Type": "application/json"}}),
        (400, "body", PREDICT, {"content": b'{"text": "\\ud800"}', "headers": {"Content-Type": "application/json"}}),
        (400, "body", PREDICT, {"content": b"no form", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}),
        (400, "body", PREDICT, {"content": b"no form", "headers": {"Content-Type": "multipart/form-data"}}),
        (400, "body", PREDICT, {"files": [("image", ("a", b"x")), ("image", ("b", b"x"))]}),
        (413, "text", PREDICT, {"json": {"text": "x" * 101}}),
        (413, "post 2: text", BATCH, {"json": [{"text": "x"}, {"text": "x" * 101}]}),
        (413, "body", BATCH, {"json": [{"text": "x"}] * 5}),
        (413, "body", PREDICT, {"json": {"text": "x" * 20_001}}),
        (413, "image", PREDICT, {"files": {"image": ("a.png", picture(size=(101, 100)))}}),
        (413, "post 2: image", BATCH, {"json": [{"image": encoded(picture(size=(80, 80)))}] * 2}),
        (413, "image", PREDICT, {"files": {"image": ("a.png", bomb())}}),
        (415, "Content-Type", PREDICT, {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
        (415, "Content-Type", BATCH, {"files": {"image": ("a.png", picture())}}),
        (415, "image", PREDICT, {"files": {"image": ("a.png", b"<svg/>")}}),
        (415, "post 1: image", BATCH, {"json": [{"image": encoded(b"\0")}, {"text": "x"}]}),
        (415, "image", PREDICT, {"files": {"image": ("a.png", b"")}}),
        (422, "image", PREDICT, {"files": {"image": ("a.png", picture(size=(64, 64))[:-30])}}),
        (422, "image", PREDICT, {"json": {"image": "data:image/png;base64,AAAA"}}),
        (422, "image", PREDICT, {"files": {"image": (None, "no file")}}),
        (422, "text", PREDICT, {"files": {"text": ("a.txt", b"a file")}}),
        (422, "text", PREDICT, {"files": [("text", (None, "once")), ("text", (None, "twice"))]}),
        (422, "text", PREDICT, {"json": {"text": 3}}),
        (422, "text", PREDICT, {"json": {"text": " \n"}}),
        (422, "text", PREDICT, {"json": {}}),
        (422, "body", PREDICT, {"json": []}),
        (422, "extra", PREDICT, {"json": {"text": "x", "extra": 1}}),
        (422, "extra", PREDICT, {"files": {"text": (None, "x"), "extra": (None, "1")}}),
        (422, "post 2: extra", BATCH, {"json": [{"text": "x"}, {"text": "x", "extra": 1}]}),
        (422, "body", BATCH, {"json": []}),
        (422, "query: exlain", f"{PREDICT}?exlain=1", {"json": {"text": "x"}}),
        (422, "query: explain", f"{PREDICT}?explain=perhaps", {"json": {"text": "x"}}),
        (422, "attributes", PREDICT, {"json": {"text": "x", "attributes": "beach"}}),
        (422, "post", PREDICT, {"json": {"text": UNUSABLE}}),
        (404, "address", "/v1/nothing", {"json": {}}),
        (405, "address", "/v1/model", {"json": {}}),
        (403, "Sec-Fetch-Site", PREDICT, {"json": {"text": "x"}, "headers": {"Sec-Fetch-Site": "cross-site"}}),
    ],
)
def test_what_is_refused_and_where(status: int, where: str, path: str, sent: dict[str, Any]) -> None:
    answer = ask("POST", path, sent=sent, text=100, pixels=10_000, posts=4, body=20_000)
    assert refused(answer, status)["where"] == where


def test_a_body_is_cut_off_while_it_is_read() -> None:
    taken = 0

    async def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1000
            yield b"x" * 1000

    answer = ask("POST", PREDICT, sent={"content": endless(), "headers": {"Content-Type": "application/json"}}, body=50_000)
    assert "longer than 50000 bytes" in refused(answer, 413)["error"]
    assert taken <= 52_000


def test_models_read_the_sides_they_were_trained_on() -> None:
    words = FakePredictor(visual="attributes")
    assert ask("POST", PREDICT, words, sent={"json": {"attributes": "beach, sunset"}}).status_code == 200
    assert refused(ask("POST", PREDICT, words, sent={"files": {"image": ("a", picture())}}), 422)["fix"] == "it reads text and attributes: leave the rest out"
    assert refused(ask("POST", PREDICT, FakePredictor(visual="none"), sent={"json": {"attributes": "beach"}}), 422)["where"] == "attributes"


def test_no_post_is_logged_whatever_happens(caplog: pytest.LogCaptureFixture) -> None:
    async def several(found: httpx.AsyncClient) -> None:
        assert (await found.post(PREDICT, json={"text": "confidential"})).status_code == 200
        told = refused(await found.post(PREDICT, json={"text": BROKEN}), 500)
        assert "secret" not in str(told)
        await found.post(PREDICT, json={"confidential": "x"})
        await found.get("/confidential%0aforged line")
        assert (await found.post(PREDICT, json={"text": "still alive"})).status_code == 200

    with caplog.at_level(logging.DEBUG):
        run(several)
    lines = [record.getMessage() for record in caplog.records if record.name == "causalroute.serve"]
    assert next(line for line in lines if "predict" in line).startswith("POST /v1/predict 200 ")
    assert any(re.fullmatch(r"GET other 404 \d+ ms", line) for line in lines)
    assert any(re.fullmatch(r"RuntimeError at fake_predictor.py:\d+", line) for line in lines)
    ours = [record for record in caplog.records if not record.name.startswith("httpx")]  # the client tells what it asks for
    assert not any(word in record.getMessage() for record in ours for word in ("confidential", "secret", "forged"))


def test_headers_and_static_files() -> None:
    async def every(found: httpx.AsyncClient) -> None:
        for path in ("/", "/docs", "/healthz", "/nothing", *(f"/static/{name}" for name in (*STATIC, "base.css"))):
            answer = await found.get(path)
            assert answer.status_code == (404 if path == "/nothing" else 200)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert "access-control-allow-origin" not in answer.headers
            policy = answer.headers["Content-Security-Policy"]
            assert "unsafe" not in policy
            assert "default-src 'none'" in policy
            assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//|url\(|@import|\sstyle=|\son\w+=|<script>", answer.text)
            assert "innerHTML" not in answer.text
        assert (await found.get("/static/../pages.py")).status_code == 404

    run(every)


def test_the_api_alone() -> None:
    for path in ("/", "/docs", "/static/page.js", "/v1/examples"):
        refused(ask("GET", path, page=False), 404)


def test_the_card_and_the_interface_description() -> None:
    card = ask("GET", "/v1/model", body=5000).json()
    assert (card["classes"], card["method"], card["reference"], card["ready"]) == (["literal", "sarcastic"], "causal_moe", "erm", True)
    assert card["limits"]["body"] == 5000
    assert card["results"]["erm"]["ood"]["accuracy"]["mean"] == 0.237
    told = ask("GET", "/openapi.json").json()
    assert set(told["paths"]) == {PREDICT, BATCH, "/v1/model", "/v1/examples", "/v1/examples/{number}/image", "/healthz", "/readyz", "/metrics"}
    body = told["paths"][PREDICT]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert all(field["description"] for field in body["application/json"]["schema"]["properties"].values())
    assert {"413", "415", "422", "429", "503", "504"} <= set(told["paths"][PREDICT]["post"]["responses"])


def test_a_model_of_few_words_has_a_card_too() -> None:
    model = FakePredictor()
    model.config = {"reference": ""}
    assert ask("GET", "/v1/model", model).json()["results"] == {}
    assert ask("POST", f"{PREDICT}?explain=1", model, sent={"json": {"text": "x"}}).status_code == 200


def test_examples(tmp_path: Path) -> None:
    (tmp_path / "own.jpg").write_bytes(picture("blue", kind="JPEG"))
    model = FakePredictor(examples=[{"text": "mine", "image": "own.jpg", "title": "From the data"}])

    async def all_of_them(found: httpx.AsyncClient) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = (await found.get("/v1/examples")).json()
        for one in listed:
            if one["image"]:
                answer = await found.get(f"/{one['image']}")
                assert (answer.headers["Content-Type"], answer.content[:4]) == ("image/png", b"\x89PNG")
        assert {refused(await found.get(f"/v1/examples/{number}/image"), 404)["where"] for number in (len(listed) - 1, 99, -1)} == {"address"}
        return listed

    listed = run(all_of_them, model, folder=tmp_path)
    assert listed[0] == {"title": "From the data", "text": "mine", "image": "v1/examples/0/image", "alt": "picture of the example", "attributes": None}
    assert [bool(one["image"]) for one in listed] == [True] * 5 + [False]
    assert {one.attributes for one in gather({"visual": "attributes"}, None)} > {"frowning face on warm stripes"}
    for wrong in ({"text": "x", "image": "../own.jpg"}, {"text": "x", "image": "gone.jpg"}, "x"):
        with pytest.raises(UserError):
            create(FakePredictor(examples=[wrong]), folder=tmp_path / "sub" if wrong == "x" else tmp_path)


@pytest.mark.parametrize(("name", "value"), [("body", 0), ("timeout", float("nan")), ("concurrency", -1), ("pixels", 10**9), ("queue", -1)])
def test_unusable_limits(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "image", "attributes", "explain", ""]), inner, max_size=4),
    max_leaves=6,
)
posts = st.fixed_dictionaries({}, optional={"text": st.text() | json, "image": st.text() | st.just(encoded(picture())) | json, "attributes": st.none() | json})


@given(st.lists(st.tuples(st.sampled_from([PREDICT, BATCH]), json | posts | st.lists(posts, max_size=3)), min_size=5, max_size=20), st.binary(max_size=200))
@settings(max_examples=25, deadline=None)
def test_any_json_gets_a_well_formed_answer(bodies: list[tuple[str, Any]], rubbish: bytes) -> None:
    async def every(found: httpx.AsyncClient) -> None:
        answers = [await found.post(path, json=body) for path, body in bodies]
        answers += [
            await found.post(PREDICT, content=rubbish, headers={"Content-Type": kind}) for kind in ("application/json", "multipart/form-data; boundary=a")
        ]
        for answer in answers:
            if answer.status_code != 200:
                assert answer.status_code in (400, 413, 415, 422)
                refused(answer, answer.status_code)
        assert await metric(found, "causalroute_ready") == 1

    run(every)


def test_hostile_metadata_of_images() -> None:
    """Orientation tags, palettes, animations: all decode, none breaks the service."""

    async def all_kinds() -> None:
        async with client() as found:
            for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
                assert (await found.post(PREDICT, files={"image": ("a", picture(kind=kind))})).status_code == 200
            assert (await found.post(PREDICT, files={"image": ("a", picture(kind="PPM"))})).status_code == 415

    import asyncio

    asyncio.run(all_kinds())
