"""The fast cut is the definition's cut, whatever the characters."""

from __future__ import annotations

import gc
import re

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from causalroute.counterfactual.tokens import PLAIN, pieces, tokenize, tokenize_many

POSTS = (
    "<user> don't wait <num> min or 3.5 h # latebus #OnTime emoji_12 😀😀 https://x.y/z?q ... [MASK] @ bob_1!!",
    "WWW.X.y <URL> http:// www. @ #  # tag [mask] [MASK]] EMOJI_3 emoji_ 3..5 1:2:3, a-b-c d'e’f -x- __ _a_ a_ ²x",
    "\x1c\x1d\x85\xa0 \u2003 tab\tnew\nline \u2028",
    '“quote” ‘x’ … …… €€ ¡¡hola!! ßß ﬁ <b class="x">&amp;</b> <script>alert(1)</script>',
    "مرحبا بالعالم \u200f\u202e שלום 你好 नमस्ते ＃ｔａｇ ①② ½ Ⅳ",
    "z\u200bw\u200dj\ufeff 👨\u200d👩\u200d👧 🇩🇪 ❤️ ı İ ſ K \u017fhttp \U0001fb00",
)


@pytest.mark.parametrize("text", POSTS)
def test_known_posts_are_cut_alike(text: str) -> None:
    assert tokenize_many([text]) == [tokenize(text)]
    for word in text.split():
        assert tokenize_many([word]) == [tokenize(word)]


@given(st.lists(st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("#@<>_.:/'-’[]!? \n😀eEmoji3wWhtp")), max_size=40), max_size=6))
@settings(max_examples=150, deadline=None)
@example([""])
@example(["!!!\x00\x00??"])
def test_any_text_is_cut_alike(texts: list[str]) -> None:
    assert tokenize_many(texts) == [tokenize(text) for text in texts]


def test_the_engines_agree_on_every_plain_character() -> None:
    """On its own, doubled, and between letters, digits and marks."""
    inside = re.compile(f"[{PLAIN}]")
    plain = [character for character in map(chr, [*range(0xD800), *range(0xE000, 0x20000)]) if inside.match(character)]
    assert len(plain) > 3000
    texts = [f"{c} {c}{c} a{c}b 1{c}2 #{c}x .{c}{c}. x{c}{c} @{c}" for c in plain]
    assert pieces(texts).null_count() == 0, "none of them takes the slow way"
    assert [text for text, one in zip(texts, tokenize_many(texts), strict=True) if one != tokenize(text)] == []


def test_characters_the_engines_differ_on_take_the_slow_way() -> None:
    assert pieces(["plain", "ſtrange", "दे", "\U00010d4e"]).is_null().to_list() == [False, True, True, True]


def test_a_text_of_100k_characters_is_cut_in_no_time() -> None:
    for text in ("#a" * 50_000, "(" * 100_000, "ab " * 33_000, "😀" * 100_000, "http://" + "x" * 100_000, "<" * 50_000 + ">" * 50_000):
        tokens = tokenize_many([text])[0]
        assert tokens == tokenize(text)
        assert tokens[-1].end == len(text.rstrip())


def test_no_text_and_empty_texts() -> None:
    assert tokenize_many([]) == []
    assert tokenize_many(["", "  \n"]) == [[], []]
    assert pieces(["a b"]).dtype == pl.List(pl.String)


def test_garbage_collection_goes_on_afterwards() -> None:
    assert gc.isenabled()
    tokenize_many(["a b"])
    assert gc.isenabled()
    with pytest.raises(TypeError):
        tokenize_many([3])  # type: ignore[list-item]
    assert gc.isenabled()
