"""The generator's own cue spans: for grading and for labelled oracle rows only."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.counterfactual.posts import Posts
from causalroute.counterfactual.text.found import Side
from causalroute.counterfactual.tokens import Token
from causalroute.errors import UserError

SPANS: dict[Side, str] = {"text": "cue_spans", "attributes": "attribute_spans"}
"""Column of the truth with the cue's place, by what the edited words are; attribute words have a known cue in injected data alone."""


def mark(posts: Posts, truth: pl.DataFrame, side: Side = "text") -> list[NDArray[np.bool_]]:
    """True for each token that overlaps a cue span.

    Raises:
        UserError: a post has no truth.
    """
    known = dict(zip(truth["id"], truth[SPANS[side]].to_list(), strict=True)) if SPANS[side] in truth.columns else {}
    spans = {name: found for name, found in known.items() if found is not None}
    missing = [name for name in posts.ids if name not in spans]
    if missing:
        raise UserError(
            f"{len(missing)} posts have no known truth, the first is {missing[0]!r}",
            where="editors: text: truth",
            fix="use it on planted or injected data",
        )
    return [overlap(tokens, spans[name]) for name, tokens in zip(posts.ids, posts.tokens, strict=True)]


def overlap(tokens: list[Token], spans: list[dict[str, int]]) -> NDArray[np.bool_]:
    """True for each token that shares a character with one of `spans`, each {"start", "end"} half open."""
    return np.array([any(span["start"] < token.end and token.start < span["end"] for span in spans) for token in tokens], dtype=bool)
