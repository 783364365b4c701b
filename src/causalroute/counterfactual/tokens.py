"""Tokens with character offsets, cut the way social-media corpora write them.

One regular expression, first match wins: links, placeholders (`<user>`, `<num>`, `[MASK]`), hashtags (also the spaced `# word` of pre-tokenised
corpora), mentions, emoji codes and emoji, numbers, words, runs of one punctuation mark. Everything that is not white space belongs to exactly one token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Kind = Literal["url", "hashtag", "mention", "emoji", "number", "word", "punctuation"]

SURFACE: tuple[Kind, ...] = ("url", "hashtag", "mention", "emoji", "number")
"""Kinds that say how a post was written or collected rather than what it means."""

_EMOJI = "[\u2190-\u21ff\u2300-\u27bf\u2b00-\u2bff\ufe0f\u200d\U0001f000-\U0001faff]+"
_PATTERN = re.compile(
    r"(?P<url>(?:https?://|www\.)\S+|<url>)"
    r"|(?P<mask>\[MASK\])"
    r"|(?P<mention>@\s?\w+|<user>)"
    r"|(?P<hashtag>#\s?\w+)"
    rf"|(?P<emoji>emoji_\d+|{_EMOJI})"
    r"|(?P<number><num>|\d+(?:[.,:/]\d+)*)"
    r"|(?P<word><\w+>|[^\W\d_]\w*(?:['’\-][^\W\d_]\w*)*)"
    r"|(?P<punctuation>(?P<mark>[^\w\s])(?P=mark)*|_+|\w)",
    re.IGNORECASE,
)
_LINKS = {"url": "<link>", "mention": "<user>"}


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
    return [_token(match) for match in _PATTERN.finditer(text)]


def _token(match: re.Match[str]) -> Token:
    groups = match.groupdict()
    kind = next(name for name in (*SURFACE, "word", "punctuation", "mask") if groups[name])
    key = _LINKS.get(kind) or "".join(match.group().lower().split())
    if kind == "punctuation":
        key = key[:3]
    return Token(match.start(), match.end(), key, "word" if kind == "mask" else kind)  # type: ignore[arg-type]


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
