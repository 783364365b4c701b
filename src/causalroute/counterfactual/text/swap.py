"""From marked tokens to counterfactual texts.

    t_s     marked tokens stay, the others become MASK          t_c     the other way round          (order and number of tokens stay)
            with `style`, t_s also keeps unmarked tokens of the kinds SURFACE: how a post was written, not what it means
    t_swap  the marked tokens become those of a donor post of another class

The donor's marked tokens take the slots of the same kind in their order, cycled where the donor has fewer. Where the donor has none of the kind, the slot
is dropped, and a kind that only the donor has is added (mentions in front, the rest at the end): that a cue is absent is itself a cue. Words, numbers
and punctuation stand inside sentences, so they are neither dropped nor added; donors that can fill such slots are preferred, else the slot stays.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.counterfactual.donors import Donors
from causalroute.counterfactual.posts import UNKNOWN, Posts
from causalroute.counterfactual.text.found import Marks, Side
from causalroute.counterfactual.tokens import SURFACE, Token, masked, render
from causalroute.counterfactual.views import MASK

SENTENCE = ("word", "number", "punctuation")
"""Kinds that a sentence falls apart without."""
LIST: tuple[str, ...] = ()
"""A list of attribute words has no such kind."""
INLINE: dict[Side, tuple[str, ...]] = {"text": SENTENCE, "attributes": LIST}
Pieces = dict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Swapped:
    """A text with another context."""

    text: str
    """the new text"""
    edits: int
    """tokens changed, dropped or added"""


def edit_texts(posts: Posts, marks: Marks, swaps: int, seed: int, side: Side = "text", unusable: Collection[int] = (), style: bool = False) -> pl.DataFrame:
    """All text views.

    Args:
        posts: M posts.
        marks: M arrays, True = context token.
        swaps: K context swaps per post.
        seed: of the donors.
        side: sentences or lists of attribute words; the two draw their donors independently.
        unusable: rows that the editor has nothing for: they keep their text in every swap, with text_ok false, and lend nothing.
        style: t_s keeps unmarked tokens of the kinds SURFACE as well.

    Returns:
        M rows: t_s, t_c str; t_swap, t_donor list[str] of length K; context_spans list of {start, end}; text_mask_ratio (share of tokens that are
        context), text_edit_distance (edited tokens over tokens, mean over swaps) f32; text_ok (every swap changed the text) bool.
    """
    contexts = [context_of(text, tokens, mark) for text, tokens, mark in zip(posts.texts, posts.tokens, marks, strict=True)]
    usable = np.ones(len(posts.ids), dtype=bool)
    usable[list(unusable)] = False
    donors = Donors(posts, seed, side, usable)
    inline = INLINE[side]
    plan = _Plan(posts, marks, contexts, _numbered(contexts), context_lean(posts, marks), _holds(contexts, inline), donors, usable, swaps, inline, style)
    rows = [_row(plan, row) for row in range(len(posts.ids))]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "t_s": pl.String,
    "t_c": pl.String,
    "t_swap": pl.List(pl.String),
    "t_donor": pl.List(pl.String),
    "context_spans": pl.List(pl.Struct({"start": pl.Int32, "end": pl.Int32})),
    "text_mask_ratio": pl.Float32,
    "text_edit_distance": pl.Float32,
    "text_ok": pl.Boolean,
}


def context_of(text: str, tokens: list[Token], mark: NDArray[np.bool_]) -> Pieces:
    """Marked tokens as written, by kind."""
    pieces: Pieces = defaultdict(list)
    for token in (tokens[i] for i in np.flatnonzero(mark)):
        pieces[token.kind].append(text[token.start : token.end])
    return dict(pieces)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """All that one row needs of the others."""

    posts: Posts
    marks: Marks
    contexts: list[Pieces]
    signatures: NDArray[np.int64]
    lean: NDArray[np.int64]
    holds: NDArray[np.bool_]
    donors: Donors
    usable: NDArray[np.bool_]
    swaps: int
    inline: tuple[str, ...]
    style: bool


def _numbered(contexts: list[Pieces]) -> NDArray[np.int64]:
    """Equal contexts, whatever their case, get equal numbers: (M,)."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(repr(sorted(context.items())).lower(), len(numbers)) for context in contexts])


def _holds(contexts: list[Pieces], kinds: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which kinds each context has: (M, kinds)."""
    return np.array([[kind in context for kind in kinds] for context in contexts], dtype=bool).reshape(len(contexts), len(kinds))


def _choose(plan: _Plan, row: int) -> list[int]:
    """Donors: first those with another context, then those whose context leans to another class, then those that fill every slot inside the sentence."""

    def score(donors: NDArray[np.int64]) -> NDArray[np.float64]:
        filled = (plan.holds[donors] & plan.holds[row]).sum(axis=1) / max(1, int(plan.holds[row].sum()))
        return 4.0 * (plan.signatures[donors] != plan.signatures[row]) + 2.0 * (plan.lean[donors] != plan.lean[row]) + filled

    return plan.donors.draw(row, plan.swaps, score)


def context_lean(posts: Posts, marks: Marks) -> NDArray[np.int64]:
    """Class that the context tokens of each post speak for (naive Bayes, equal class priors, train counts), UNKNOWN without any: (M,).

    A random donor of another class often carries the very cue that is to be replaced; a donor that leans elsewhere does not.
    """
    keys = [[tokens[i].key for i in np.flatnonzero(mark)] for tokens, mark in zip(posts.tokens, marks, strict=True)]
    index = {key: number for number, key in enumerate(sorted({key for found in keys for key in found}))}
    counts = np.ones((len(index), posts.classes))
    for row in np.flatnonzero(posts.train):
        for key in set(keys[row]):
            counts[index[key], posts.labels[row]] += 1
    rates = np.log(counts / np.bincount(posts.labels[posts.train], minlength=posts.classes))
    return np.array([int(np.argmax(rates[[index[key] for key in found]].sum(axis=0))) if found else UNKNOWN for found in keys])


def _row(plan: _Plan, row: int) -> tuple[object, ...]:
    text, tokens, mark = plan.posts.texts[row], plan.posts.tokens[row], plan.marks[row]
    chosen = _choose(plan, row) if plan.usable[row] else []
    swapped = [swap(text, tokens, mark, plan.contexts[donor], plan.inline) for donor in chosen] or [Swapped(text, 0)] * plan.swaps
    names = [plan.posts.ids[donor] for donor in chosen] or [plan.posts.ids[row]] * plan.swaps
    spans = [{"start": tokens[i].start, "end": tokens[i].end} for i in np.flatnonzero(mark)]
    ratio = float(mark.mean()) if len(mark) else 0.0
    distance = float(np.mean([s.edits for s in swapped])) / max(1, len(tokens))
    return *sides_of(text, tokens, mark, plan.style), [s.text for s in swapped], names, spans, ratio, distance, all(s.text != text for s in swapped)


def sides_of(text: str, tokens: list[Token], mark: NDArray[np.bool_], style: bool) -> tuple[str, str]:
    """t_s and t_c (module rules)."""
    kept = mark | np.array([style and token.kind in SURFACE for token in tokens], dtype=bool)
    return masked(text, tokens, ~kept, MASK), masked(text, tokens, mark, MASK)


def swap(
    text: str,
    tokens: list[Token],
    mark: NDArray[np.bool_],
    donor: Pieces,
    inline: tuple[str, ...] = SENTENCE,
    written: Sequence[str | None] | None = None,
) -> Swapped:
    """`text` with its marked tokens replaced by the donor's marked tokens (module rules); kinds of `inline` are neither dropped nor added.

    `written` says what the tokens begin as, None for a dropped one; without it they are as in `text`.
    """
    pieces: list[str | None] = [text[token.start : token.end] for token in tokens] if written is None else list(written)
    used: dict[str, int] = defaultdict(int)
    for i in np.flatnonzero(mark):
        kind = tokens[i].kind
        if supply := donor.get(kind):
            pieces[i] = supply[used[kind] % len(supply)]
            used[kind] += 1
        elif kind not in inline:
            pieces[i] = None
    own = {tokens[i].kind for i in np.flatnonzero(mark)}
    added = {kind: words for kind, words in donor.items() if kind not in own and kind not in inline}
    edits = sum(piece != text[token.start : token.end] for piece, token in zip(pieces, tokens, strict=True)) + sum(map(len, added.values()))
    front = added.pop("mention", [])
    back = [piece for words in added.values() for piece in words]
    return Swapped(" ".join([*front, *([body] if (body := render(text, tokens, pieces)) else []), *back]), edits)
