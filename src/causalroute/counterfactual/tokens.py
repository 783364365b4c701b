"""Tokens with character offsets, cut the way social-media corpora write them.

One regular expression, first match wins: links, placeholders (`<user>`, `<num>`, `[MASK]`), hashtags (also the spaced `# word` of pre-tokenised
corpora), mentions, emoji codes and emoji, numbers, words, runs of one punctuation mark. Everything that is not white space belongs to exactly one token.

`tokenize` is the definition. `tokenize_many` gives the same tokens several times faster: polars' regular expressions (Rust, linear time, no back-references)
cut the texts whose characters all lie in PLAIN, where both engines agree on what a letter, a digit and white space is; the few others go through `tokenize`.
What a piece is depends on its characters alone (the expression looks neither ahead nor behind), so each distinct piece is looked at once; and as only
white space stands between tokens, a piece begins where it is next found.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["url", "hashtag", "mention", "emoji", "number", "word", "punctuation"]

SURFACE: tuple[Kind, ...] = ("url", "hashtag", "mention", "emoji", "number")
"""Kinds that say how a post was written or collected rather than what it means."""

_EMOJI = "[\u2190-\u21ff\u2300-\u27bf\u2b00-\u2bff\ufe0f\u200d\U0001f000-\U0001faff]+"


def _expression(space: str, letter: str, digit: str, character: str, marks: str) -> str:
    """The regular expression over the engine's own classes: white space, first character of a word, digit, word character, runs of one mark."""
    return (
        rf"(?P<url>(?:https?://|www\.)[^{space}]+|<url>)"
        r"|(?P<mask>\[MASK\])"
        rf"|(?P<mention>@[{space}]?[{character}]+|<user>)"
        rf"|(?P<hashtag>#[{space}]?[{character}]+)"
        rf"|(?P<emoji>emoji_{digit}+|{_EMOJI})"
        rf"|(?P<number><num>|{digit}+(?:[.,:/]{digit}+)*)"
        rf"|(?P<word><[{character}]+>|{letter}[{character}]*(?:['’\-]{letter}[{character}]*)*)"
        rf"|(?P<punctuation>{marks}|_+|[{character}])"
    )


_PATTERN = re.compile(_expression(r"\s", r"[^\W\d_]", r"\d", r"\w", r"(?P<mark>[^\w\s])(?P=mark)*"), re.IGNORECASE)
_LINKS = {"url": "<link>", "mention": "<user>"}

PLAIN = "\x00-\u012f\u0132-\u017e\u0180-\u024f\u2000-\u206f\u20a0-\u20bf\u2190-\u21ff\u2300-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff"
"""Characters on whose classes the two engines agree (a test goes through all of them). Left out inside: the letters that only one of them calls i or s."""
_BEYOND = f"[^{PLAIN}]"


class Token(NamedTuple):
    """One token of a text."""

    start: int
    """first character"""
    end: int
    """one past the last character"""
    key: str
    """lower case, spaces removed; every link and every mention has the same key, for which one it is says nothing general"""
    kind: Kind
    """what it looks like"""


def tokenize(text: str) -> list[Token]:
    """Tokens of `text` in order; between two of them there is nothing but white space."""
    return [Token(match.start(), match.end(), *_looks(match)) for match in _PATTERN.finditer(text)]


def _looks(match: re.Match[str]) -> tuple[str, Kind]:
    """Key and kind of a matched piece; the expression's last group to close is the one that matched."""
    kind = match.lastgroup or "punctuation"
    key = _LINKS.get(kind) or "".join(match.group().lower().split())
    if kind == "punctuation":
        key = key[:3]
    return key, "word" if kind == "mask" else kind  # type: ignore[return-value]


def tokenize_many(texts: Sequence[str]) -> list[list[Token]]:
    """`tokenize` of each text, faster."""
    known: dict[str, tuple[str, Kind]] = {}
    with _uncollected():
        return [tokenize(text) if cut is None else _placed(text, cut, known) for text, cut in zip(texts, pieces(texts).to_list(), strict=True)]


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection inside: tokens form no cycles, and walking over millions of new ones to find that out takes as long as making them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def pieces(texts: Sequence[str]) -> pl.Series:
    """The tokens of each text as written, list[str]; null for texts with a character beyond PLAIN."""
    import polars as pl

    column = pl.Series("pieces", texts, pl.String)
    found = pl.select(pl.when(~column.str.contains(_BEYOND)).then(column)).to_series()
    return found.str.extract_all(scan_pattern())


@cache
def scan_pattern() -> str:
    """The expression in the syntax of polars: Python's classes spelt out, a run of one mark as a choice between the runs of each mark of PLAIN."""
    mark = re.compile(r"[^\w\s]")
    inside = re.compile(f"[{PLAIN}]")
    marks = [character for character in map(chr, [*range(0xD800), *range(0xE000, 0x1FB00)]) if inside.match(character) and mark.match(character)]
    runs = "|".join(rf"\x{{{ord(character):x}}}+" for character in marks if not re.match(_EMOJI, character))
    return "(?i)" + _expression(r"\s\x1c-\x1f", r"[\p{L}\p{Nl}\p{No}]", r"\p{Nd}", r"\p{L}\p{N}_", f"(?:{runs})")


def _placed(text: str, cut: Sequence[str], known: dict[str, tuple[str, Kind]]) -> list[Token]:
    """Tokens of `text` that is cut into `cut`; `known` remembers what pieces are."""
    tokens: list[Token] = []
    make, find, end = tuple.__new__, text.find, 0  # a NamedTuple's own constructor takes as long as all the rest
    for piece in cut:
        looks = known.get(piece)
        if looks is None:
            looks = known[piece] = _looks(_matched(piece))
        start = find(piece, end)
        end = start + len(piece)
        tokens.append(make(Token, (start, end, looks[0], looks[1])))
    return tokens


def _matched(piece: str) -> re.Match[str]:
    match = _PATTERN.fullmatch(piece)
    if match is None:
        raise AssertionError(f"the engines cut {piece!r} differently")
    return match


def render(text: str, tokens: Sequence[Token], pieces: Sequence[str | None]) -> str:
    """The text with token i written as `pieces[i]`; None drops it with the white space before it. Other white space stays."""
    out, position = [], 0
    for token, piece in zip(tokens, pieces, strict=True):
        if piece is not None:
            out += [text[position : token.start], piece]
        position = token.end
    return "".join([*out, text[position:]]).strip() if None in pieces else "".join([*out, text[position:]])


def masked(text: str, tokens: Sequence[Token], hide: NDArray[np.bool_], mask: str) -> str:
    """The text with hidden tokens replaced by `mask`: order and number of tokens stay."""
    return render(text, tokens, [mask if hidden else text[token.start : token.end] for token, hidden in zip(tokens, hide, strict=True)])
