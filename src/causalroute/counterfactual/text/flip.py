"""Flipped texts: the same post rewritten so that its label is the other one; null where there is none that holds.

They come from published rewrites of train posts or from a language model. A flip is kept when

    its own label is known and differs from the post's,
    it differs from the text in more than white space and case,
    d(t, t_flip) <= budget        d = max(|A - B|, |B - A|) / max(|A|, |B|), A and B the bags of token keys: the share of tokens changed, order ignored.

It is then written the way the original is: in lower case where the original has no capital, with a space around every token where the corpus has.
A flip is no swap: its context is its own, its label is not the post's.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import polars as pl

from causalroute.counterfactual.posts import UNKNOWN, Posts
from causalroute.counterfactual.tokens import tokenize

BUDGET = 0.8
"""Share of tokens that a published rewrite may change: people rewrite more freely than an editor is told to."""


def published(posts: Posts, rewrites: pl.DataFrame | None, budget: float = BUDGET) -> list[str | None]:
    """Checked flips of M posts from `rewrites` (columns id, text, label; the first usable one of each post); None for every post that is not a train post."""
    found: list[str | None] = [None] * len(posts.ids)
    if rewrites is None or not rewrites.height:
        return found
    spaced = is_spaced(posts)
    place = {name: row for row, name in enumerate(posts.ids)}
    for name, text, label in rewrites.select("id", "text", "label").iter_rows():
        row = place.get(name)
        if row is None or found[row] is not None or not posts.train[row] or label is None or label in (UNKNOWN, posts.labels[row]):
            continue
        if not problem(posts.texts[row], text or "", budget):
            found[row] = styled(text, posts.texts[row], spaced)
    return found


def problem(text: str, flip: str, budget: float) -> str:
    """Why `flip` is no flip of `text`: "empty_flip", "same_flip", "flip_over_budget"; "" where it is one."""
    before, after = ([token.key for token in tokenize(version)] for version in (text, flip))
    if not after:
        return "empty_flip"
    if before == after:
        return "same_flip"
    return "flip_over_budget" if distance(before, after) > budget else ""


def distance(before: list[str], after: list[str]) -> float:
    """d of the module equation, in [0, 1]; 0 for two empty lists."""
    a, b = Counter(before), Counter(after)
    return max((a - b).total(), (b - a).total()) / max(1, len(before), len(after))


def styled(flip: str, original: str, spaced: bool) -> str:
    """`flip` in the casing of `original`, and with a space around every token where the corpus is `spaced`."""
    flip = " ".join(flip.split())
    if original == original.lower():
        flip = flip.lower()
    return " ".join(flip[token.start : token.end] for token in tokenize(flip)) if spaced else flip


def is_spaced(posts: Posts) -> bool:
    """Whether the corpus is pre-tokenised: in most texts with a punctuation mark white space stands between all tokens."""
    votes = [
        all(one.end < two.start for one, two in pairwise(tokens))
        for tokens in posts.tokens
        if len(tokens) > 1 and any(token.kind == "punctuation" for token in tokens)
    ]
    return bool(votes) and 2 * sum(votes) > len(votes)
