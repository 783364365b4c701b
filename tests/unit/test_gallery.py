"""The gallery: which posts, what changed in them, and that nothing a post says can break the page."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.unit.gate_posts import judged, posts
from tests.unit.test_gate import CONFIG

from causalroute import io, layout
from causalroute.counterfactual.changes import COMPARED, LONGEST, Piece, blanks, compared, shorten, struck
from causalroute.counterfactual.pixels import pack_mask
from causalroute.counterfactual.showcase import OUTLINE, REASONS, Card, Line, Shot, choose, data_uri, outlined
from causalroute.report.blocks import visible
from causalroute.report.gallery import render, usable
from causalroute.stages import gallery as gallery_stage

NASTY = "<script>alert(1)</script> \"'& <img src=x onerror=alert(2)> \u202eevil\u200b [MASK] مرحبا 🙂 {{ 7 * 7 }} \x00 </dd></article>"
OPEN_ENDED = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags in order, attributes, visible text; every element must be closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in OPEN_ENDED:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def found(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def card(**changed: object) -> Card:
    plain = Card("e", "p1", "literal", "train", REASONS[1], True, True, [Line("text", [Piece("same", "good bus")])], [], [("original", 0.93)])
    return dataclasses.replace(plain, **changed)


@given(st.text(max_size=60), st.text(max_size=60))
@example("0:", "\r:")
@example("a :", "a:")
@settings(max_examples=80, deadline=None)
def test_pieces_give_both_versions_back(old: str, new: str) -> None:
    found = compared(old, new)
    if old == new:
        assert [piece.kind for piece in found] == ["cut"]
        return
    joined = {kept: "".join(piece.text for piece in found if piece.kind in ("same", kept)) for kept in ("gone", "new")}
    assert joined["new"].split() == new.split()
    assert joined["gone"].split() == old.split()


@given(st.lists(st.sampled_from(["good ", "[MASK]", " bus", "#east "]), max_size=12))
def test_masked_texts_keep_every_character(parts: list[str]) -> None:
    text = "".join(parts)
    found = blanks(text)
    assert "".join(piece.text for piece in found) == text
    assert sum(piece.kind == "mask" for piece in found) == text.count("[MASK]")


def test_struck_words_lie_where_the_spans_say() -> None:
    assert struck("good bus #east", [{"start": 9, "end": 14}]) == [Piece("same", "good bus "), Piece("gone", "#east")]
    assert struck("#a b", [{"start": 0, "end": 2}]) == [Piece("gone", "#a"), Piece("same", " b")]
    assert struck("", []) == []


def test_long_texts_are_cut_and_say_so() -> None:
    found = shorten([Piece("same", "a" * 300), Piece("gone", "b" * 99_700)])
    assert sum(len(piece.text) for piece in found[:-1]) == LONGEST
    assert found[-1] == Piece("cut", f"… {100_000 - LONGEST:,} more characters")
    assert shorten([Piece("same", "short")]) == [Piece("same", "short")]
    assert len(compared("a " * 50_000, "b " * 50_000)) <= COMPARED * 2


def test_posts_are_chosen_by_effect_class_and_failure() -> None:
    sample = judged(200)
    broken = dataclasses.replace(sample, rows=sample.rows.with_columns(text_ok=pl.int_range(200) >= 3))
    effect = np.linspace(-1, 1, 200)
    found = choose(broken, effect, 16)
    assert found == choose(broken, effect, 16)
    rows = [row for row, _ in found]
    assert len(set(rows)) == len(rows) == 16
    why = {reason: [row for row, given in found if given == reason] for reason in REASONS}
    assert set(why[REASONS[0]]) == {0, 1, 2}
    assert min(effect[why[REASONS[1]]]) > max(effect[why[REASONS[2]]])
    for reason in REASONS[1:]:
        shares = np.bincount(sample.labels[why[reason]], minlength=2)
        assert abs(shares[0] - shares[1]) <= 1, "classes in turn"


def test_the_outline_lies_on_the_border_of_the_mask() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:6, 2:6] = True
    found = np.array(outlined(Image.new("RGB", (80, 40)), mask))
    painted = (found == OUTLINE).all(axis=2)
    assert painted[10:30, 20].all()
    assert not painted[15:25, 30:50].any(), "the inside stays"
    assert not painted[:, :19].any()
    assert not (np.array(outlined(Image.new("RGB", (80, 40)), mask & False)) == OUTLINE).all(axis=2).any()


def test_a_hostile_post_stays_text() -> None:
    lines = [Line(NASTY, [Piece(kind, NASTY) for kind in ("same", "gone", "new", "mask", "cut")])]
    shots = [Shot(NASTY, data_uri(Image.new("RGB", (9, 9))), NASTY)]
    hostile = card(editor=NASTY, post=NASTY, label=NASTY, split=NASTY, lines=lines, shots=shots, chances=[(NASTY, 0.5)])
    gates = {NASTY: {"text": {"verdict": "failed", "reasons": [NASTY]}, "image": {"verdict": "passed", "reasons": []}}}
    text = render(NASTY, [hostile], gates)
    page = Page(text)
    assert len(page.found("script")) == 1
    assert len(page.found("article")) == 1
    assert [image["src"][:22] for image in page.found("img") if image["src"]] == ["data:image/jpeg;base64"]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "\x00" not in text
    assert "\u202e" not in text, "no word turns the direction of the page"
    assert "49" not in "".join(page.words).replace("00AD", "")
    policy = next(meta["content"] for meta in page.found("meta") if meta.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    assert not re.search(r"(src|href)=\"?(https?:)?//", text)


def test_control_characters_are_seen() -> None:
    assert visible("a\u202eb\u200bc\nd\x07") == "a⟨202E⟩b⟨200B⟩c d�"
    assert visible("👩\u200d🎤 مرحبا") == "👩\u200d🎤 مرحبا"


def test_the_page_filters_by_what_the_cards_hold_and_reads_without_script() -> None:
    found = [card(), card(editor="f", label="sarcastic", text_ok=False, why=REASONS[0]), card(text_ok=False, image_ok=False)]
    gates = {"e": {"text": {"verdict": "undecided", "reasons": [], "undecided": ["too few"]}, "image": {"verdict": "passed", "reasons": []}}}
    page = Page(render("toy", found, gates))
    assert [select["name"] for select in page.found("select")] == ["editor", "label", "usable", "why"]
    assert [article["data-usable"] for article in page.found("article")] == ["text and image", "image", "none"]
    assert [usable(one) for one in found] == ["text and image", "image", "none"]
    assert "hidden" in page.found("form")[0], "shown by the script that serves it"
    assert not any("hidden" in article for article in page.found("article"))
    words = " ".join(" ".join(page.words).split())
    assert "93 %" in words
    assert "undecided" in words
    assert "too few" in words


def test_the_stage_shows_train_and_validation_posts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest, table, factual, views = posts(160)
    raw = layout.raw("toy")
    raw.mkdir(parents=True)
    for i in range(160):
        Image.new("RGB", (40, 20 + i % 7), (i, 99, 200)).save(raw / f"{i}.png")
    hidden = pl.int_range(160) < 30
    manifest = manifest.with_columns(split=pl.when(hidden).then(pl.lit("id")).otherwise("split"), label=pl.when(~hidden).then("label"))
    mask = np.zeros((8, 8), dtype=bool)
    mask[3:7, 2:6] = True
    table = table.with_columns(
        mask=pl.lit(pack_mask(mask)), mask_side=pl.lit(8, pl.Int32), v_donor=pl.Series([[f"p{(i + 40) % 160}"] for i in range(160)]), fill=pl.lit("mean")
    )
    io.write_parquet(layout.manifest("toy"), manifest)
    metadata = {"ids_sha256": io.sha256_bytes(*(name.encode() for name in manifest["id"]))}
    tensors = {name: torch.tensor(x) if name == "rows" else torch.tensor(x).half() for name, x in views.items()}
    io.write_tensors(layout.features("toy", "b", "factual"), {name: torch.tensor(x).half() for name, x in factual.items()}, metadata)
    for editor in ("e", "f"):
        io.write_parquet(layout.counterfactuals("toy", editor), table)
        io.write_tensors(layout.features("toy", "b", editor), tensors, metadata)
        io.write_json(layout.gate("toy", editor), {side: {"verdict": "passed", "reasons": []} for side in ("text", "image")})
    arguments = ["--dataset", "toy", "--editors", "e", "f", "--backbone", "b", "--config", CONFIG]
    assert gallery_stage.main(arguments) == 0
    text = layout.gallery("toy").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.found("article")) == gallery_stage.CARDS
    assert len(page.found("img")) == 4 * gallery_stage.CARDS
    assert all(image["alt"] for image in page.found("img"))
    shown = {int(name) for name in re.findall(r">p(\d+)</h3>", text)}
    assert min(shown) >= 30
    assert "core only" in " ".join(page.words)
    assert len(text) < 3_000_000
    assert gallery_stage.main(arguments) == 0
    assert layout.gallery("toy").read_text(encoding="utf-8") == text


def test_attribute_words_are_never_called_an_image() -> None:
    gates = {"e": {side: {"verdict": "passed", "reasons": []} for side in ("text", "image")}}
    page = Page(render("toy", [card(chances=[("original", 0.5), ("image swapped", 0.5)])], gates, "attributes"))
    words = " ".join(page.words)
    assert "attributes swapped" in words
    assert "image" not in words
    assert [article["data-usable"] for article in page.found("article")] == ["text and attributes"]
