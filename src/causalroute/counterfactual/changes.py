"""A text cut into pieces that say what an edit did to it: kept, struck, new or masked. The pieces of a version, joined, are that version (and what it lost)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from itertools import groupby, pairwise
from typing import NamedTuple

from causalroute.counterfactual.tokens import tokenize
from causalroute.counterfactual.views import MASK

LONGEST = 320
"""Characters of a text that are shown."""
COMPARED = 400
"""Tokens of a text that are compared; the rest is told as kept."""


class Piece(NamedTuple):
    """A run of characters."""

    kind: str
    """same, gone, new, mask or cut"""
    text: str


def struck(text: str, spans: Sequence[Mapping[str, int]]) -> list[Piece]:
    """The text with the characters of `spans` (start, end; in order) struck."""
    found, position = [], 0
    for span in spans:
        found += [Piece("same", text[position : span["start"]]), Piece("gone", text[span["start"] : span["end"]])]
        position = span["end"]
    return [piece for piece in [*found, Piece("same", text[position:])] if piece.text]


def blanks(text: str) -> list[Piece]:
    """A text with masked tokens."""
    found: list[Piece] = []
    for i, part in enumerate(text.split(MASK)):
        found += [Piece("mask", MASK)] * (i > 0) + [Piece("same", part)] * bool(part)
    return found


def compared(old: str, new: str) -> list[Piece]:
    """What became of `old` in `new`, token by token; a text that did not change is only told to be so."""
    if old == new:
        return [Piece("cut", "as it was")]
    before, after = _tokens(old), _tokens(new)
    found: list[Piece] = []
    for kind, a, b, c, d in SequenceMatcher(None, [word.strip() for word in before], [word.strip() for word in after], autojunk=False).get_opcodes():
        if kind == "equal":
            found += [piece for pair in zip(before[a:b], after[c:d], strict=True) for piece in _kept(*pair)]
        else:
            found += [Piece("gone", "".join(before[a:b])), Piece("new", "".join(after[c:d]))]
    runs = groupby((piece for piece in found if piece.text), key=lambda piece: piece.kind)
    return [Piece(kind, "".join(piece.text for piece in run)) for kind, run in runs]


def _kept(old: str, new: str) -> list[Piece]:
    """A token that stayed; white space before it that only one version has is gone or new, or words of the other would be joined or parted."""
    word = new.lstrip()
    if old[:1].isspace() == new[:1].isspace():
        return [Piece("same", new)]
    return [Piece("gone", old[: len(old) - len(old.lstrip())]), Piece("new", new[: len(new) - len(word)]), Piece("same", word)]


def _tokens(text: str) -> list[str]:
    """Tokens with the white space before them; joined they are the text's first COMPARED tokens."""
    ends = [0, *(token.end for token in tokenize(text[: LONGEST * 4])[:COMPARED])]
    return [text[start:end] for start, end in pairwise(ends)]


def shorten(pieces: Sequence[Piece], longest: int = LONGEST) -> list[Piece]:
    """At most `longest` characters; a piece `cut` says how many more there are."""
    found, left = [], longest
    for piece in pieces:
        if left > 0:
            found.append(Piece(piece.kind, piece.text[:left]))
        left -= len(piece.text)
    return [*found, Piece("cut", f"… {-left:,} more characters")] if left < 0 else found
