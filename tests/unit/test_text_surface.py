from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.test_lexicon import make

from causalroute.config import Editor, Planted
from causalroute.counterfactual.posts import Posts
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.text import EDITORS, edit_texts, find, lexicon, surface
from causalroute.counterfactual.text.truth import overlap
from causalroute.counterfactual.tokens import SURFACE, tokenize, tokenize_many
from causalroute.data.planted import benchmark

BAD = {
    "empty": "",
    "blank": " \n\t",
    "long": "so tired # monday " * 5600,
    "one token": "a" * 100_000,
    "emoji": "👩\u200d👩\u200d👧 ❤️ 🇩🇪",
    "right to left": "مرحبا \u202e #وسم שלום",
    "zero width": "not\u200bgood\ufeff #\u200btag",
    "html": '<b onclick="alert(1)">not</b> &amp; <script>x</script> #tag',
    "marks": "( [ { " * 2000 + "] " * 2000,
}


def marked(text: str) -> list[str]:
    tokens = tokenize(text)
    return [text[token.start : token.end] for token, context in zip(tokens, surface.mark_tokens(tokens), strict=True) if context]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("not good # monday <user> <num> https://x.y emoji_3 😀 3.5", ["# monday", "<user>", "<num>", "https://x.y", "emoji_3", "😀", "3.5"]),
        ('he said " so happy " today', ['"', '"']),
        ("“so” «happy» (today)", ["“", "”", "«", "»", "(", ")"]),
        ("rain again [ video ] ( via @bob )", ["[", "video", "]", "(", "via", "@bob", ")"]),
        ("(not a video, my dear friend)", ["(", ")"]),
        ("rt @bob : i love it via @ann , cc @x", ["rt", "@bob", ":", "via", "@ann", "cc", "@x"]),
        ("the rt is down : really ?", []),
        ("don't you 'dare' ) ( [ x", []),
        ("( a ] b )", ["(", ")"]),
    ],
)
def test_forms(text: str, expected: list[str]) -> None:
    assert marked(text) == expected


@given(st.lists(st.sampled_from(['"', "(", ")", "[", "]", "word", "not", "@x", "via", ":", "#t", "5"]), max_size=30))
@settings(max_examples=100, deadline=None)
def test_pairs_match_and_words_other_than_credits_stay(words: list[str]) -> None:
    tokens = tokenize(" ".join(words))
    for start, end in surface.pairs(tokens):
        assert start < end
        assert surface.CLOSING[tokens[start].key] == tokens[end].key
    for token, context in zip(tokens, surface.mark_tokens(tokens), strict=True):
        assert context or token.kind not in SURFACE
        assert not context or token.key not in ("word", "not")


@pytest.mark.parametrize("name", ["lexicon", "surface", "random"])
def test_bad_input_is_edited_like_any_other(name: str) -> None:
    texts = [*BAD.values(), *["late bus #a"] * 200, *["early bus #b"] * 200]
    posts = make(texts, [i % 2 for i in range(len(BAD))] + [0] * 200 + [1] * 200)
    found = find(posts, Editor(text=name, image="random", z=3.0), Sources(Path())).marks  # type: ignore[arg-type]
    table = edit_texts(posts, found, 1, 0)
    assert table.height == len(texts)
    for text, tokens, mark, row in zip(texts[: len(BAD)], posts.tokens, found, table.iter_rows(named=True), strict=False):
        assert len(mark) == len(tokens)
        assert len(tokenize(row["t_c"])) == len(tokens)
        assert [text[s["start"] : s["end"]] for s in row["context_spans"]] == [text[tokens[i].start : tokens[i].end] for i in np.flatnonzero(mark)]
        if not mark.any():
            assert row["t_c"] == text
    assert table["t_c"][0] == table["t_s"][0] == ""


def test_a_lexicon_marks_texts_it_has_not_seen() -> None:
    posts = make(["late bus #a"] * 200 + ["early bus #b"] * 200, [0] * 200 + [1] * 200)
    fitted = lexicon.fit(posts, 5.0)
    new = tokenize_many(["#b is new #c", "", "late #A"])
    assert [mark.tolist() for mark in fitted.mark(new)] == [[True, False, False, False], [], [False, True]]
    assert [mark.tolist() for mark in fitted.mark(posts.tokens)] == [mark.tolist() for mark in lexicon.mark(posts, 5.0)]


def planted(train: int) -> tuple[Posts, list[np.ndarray]]:
    """Texts of the planted benchmark and their true cue tokens."""
    drawn = [benchmark.draw(Planted(), "sarcasm", "train", index)[0] for index in range(train)]
    posts = make([row["text"] for row in drawn], [benchmark.CLASSES["sarcasm"].index(row["label"]) for row in drawn])
    return posts, [overlap(tokens, row["cue_spans"]) for tokens, row in zip(posts.tokens, drawn, strict=True)]


def f1(found: list[np.ndarray], true: list[np.ndarray]) -> float:
    one, two = np.concatenate(found), np.concatenate(true)
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


def test_planted_cues_are_found_and_random_tokens_are_not_them() -> None:
    posts, true = planted(1500)
    editors = [Editor(text="lexicon", image="random"), Editor(text="surface", image="random"), Editor(text="random", image="random")]
    scores = {editor.text: f1(find(posts, editor, Sources(Path())).marks, true) for editor in editors}
    assert scores["lexicon"] >= 0.95
    assert scores["surface"] >= 0.95
    assert scores["random"] < 0.4


def test_every_editor_of_the_settings_is_registered() -> None:
    assert set(get_args(get_type_hints(Editor)["text"])) == set(EDITORS)


def test_failures_are_counted_by_reason(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    posts = make(["bus #a", "tram #b", "car"], [0, 1, 0])
    found = find(posts, Editor(text="surface", image="random"), Sources(Path())).marks
    monkeypatch.setitem(EDITORS, "surface", lambda *_: surface_with_failures(found))
    find(posts, Editor(text="surface", image="random"), Sources(Path()))
    assert "2 of 3 posts: no edit (malformed 1, refused 1)" in capsys.readouterr().err


def surface_with_failures(found: list[np.ndarray]) -> object:
    from causalroute.counterfactual.text.found import Found

    return Found(found, failures={0: "malformed", 2: "refused"})


def test_a_post_without_edit_is_not_swapped_and_lends_nothing() -> None:
    posts = make(["bus #a", "tram #b", "car #c", "van #d"], [0, 1, 0, 1])
    mark = [np.array([False, True])] * 4
    table = edit_texts(posts, mark, 2, 0, unusable={1: "refused"})
    assert table["text_ok"].to_list() == [True, False, True, True]
    assert table["t_swap"][1].to_list() == ["tram #b"] * 2
    assert "p1" not in table.filter(table["text_ok"])["t_donor"].explode().to_list()
