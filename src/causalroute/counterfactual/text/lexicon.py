"""Context tokens found by a lexicon: what a class overuses although it does not carry the meaning of the post.

Log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi and Quinn, Fightin' Words, 2008), class i against the rest j:

    d_w = log((y_iw + a_w) / (n_i + a_0 - y_iw - a_w)) - log((y_jw + a_w) / (n_j + a_0 - y_jw - a_w))
    z_w = d_w / sqrt(sum of the reciprocals of these four counts)

y_iw posts of class i that hold token w, n_i = sum_w y_iw, a_w = a_0 p_w with p_w the token's share in all train posts: rare tokens are drawn to 0.
Two rules say what is context:

1. A surface token (hashtag, mention, number, link, emoji) with |z| > editor.z, or any token of a surface kind whose *presence* has |z| > editor.z
   (corpora where one class was collected by its hashtags).
2. Any other token only with |z| > WORD_BAR * editor.z. In sarcasm the sentiment word is half of the incongruity, in sentiment it is the answer;
   swapping it would destroy the core, which costs more than a swap that fails. Negations and common sentiment words (GUARDED) never count.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from causalroute.counterfactual.posts import Posts
from causalroute.counterfactual.tokens import SURFACE, Token

WORD_BAR = 3.0
"""A word or punctuation mark needs a z this many times higher than a surface token."""
PRIOR = 500.0
"""a_0: pseudo-occurrences of the prior."""
_WORDS = """
    not no never none nothing nobody cannot can't cant don't dont won't wont isn't isnt n't without hardly
    good great nice best better love loved loving lovely like liked happy happiness fun funny glad joy enjoy enjoyed wonderful
    amazing awesome fantastic brilliant excellent perfect beautiful delightful charming pleasant superb gorgeous cheerful
    bad worse worst hate hated hating sad sadness angry anger awful terrible horrible dreadful miserable nasty ugly boring
    annoying annoyed disgusting gloomy bleak painful hurt cry crying sorry fail failed failure stupid sick tired proud exciting
    excited thanks thank
"""
GUARDED = frozenset(_WORDS.split())
"""Negations and sentiment words: core, whatever they correlate with."""


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """What was found in the train split; marks any text."""

    keys: frozenset[str]
    """token keys that are context"""
    kinds: frozenset[str]
    """surface kinds all of whose tokens are context"""

    def mark(self, tokens: Sequence[Sequence[Token]]) -> list[NDArray[np.bool_]]:
        """True for each context token of each of M token lists."""
        keys, kinds = self.keys, self.kinds
        ends = np.cumsum([0, *map(len, tokens)]).tolist()
        flat = np.fromiter((key in keys or kind in kinds for row in tokens for _, _, key, kind in row), dtype=bool, count=ends[-1])
        return [flat[start:end] for start, end in pairwise(ends)]


def fit(posts: Posts, z: float) -> Lexicon:
    """The lexicon of the train split.

    Args:
        posts: M posts; labels of the train split are read, no others.
        z: the bar on |z|.
    """
    return Lexicon(frozenset(context_keys(posts, z)), frozenset(context_kinds(posts, z)))


def mark(posts: Posts, z: float) -> list[NDArray[np.bool_]]:
    """True for each context token of each post: `fit` and `Lexicon.mark`."""
    return fit(posts, z).mark(posts.tokens)


def context_keys(posts: Posts, z: float) -> set[str]:
    """Token keys that are context by their own z."""
    kinds = {token.key: token.kind for tokens in posts.tokens for token in tokens}
    scores = log_odds(keys_per_post(posts), posts)
    return {key for key, score in scores.items() if key not in GUARDED and abs(score) > (z if kinds[key] in SURFACE else WORD_BAR * z)}


def context_kinds(posts: Posts, z: float) -> set[str]:
    """Surface kinds whose presence in a post is itself a cue."""
    scores = presence_z(kinds_per_post(posts), posts)
    return {kind for kind in SURFACE if abs(scores.get(kind, 0.0)) > z}


def keys_per_post(posts: Posts) -> list[set[str]]:
    """Distinct token keys of each post."""
    return [{token.key for token in tokens} for tokens in posts.tokens]


def kinds_per_post(posts: Posts) -> list[set[str]]:
    """Distinct token kinds of each post."""
    return [{str(token.kind) for token in tokens} for tokens in posts.tokens]


def _counts(present: list[set[str]], posts: Posts) -> tuple[list[str], NDArray[np.float64]]:
    """Names in order of first use and their post counts per class: (W,), (C, W); train posts only."""
    per_class = [Counter[str]() for _ in range(posts.classes)]
    for names, label, train in zip(present, posts.labels, posts.train, strict=True):
        if train:
            per_class[label].update(names)
    names_in_order = sorted(set().union(*per_class))
    return names_in_order, np.array([[counter[name] for name in names_in_order] for counter in per_class], dtype=float)


def log_odds(present: list[set[str]], posts: Posts) -> dict[str, float]:
    """The z of largest size over classes, per token key (module equation)."""
    names, counts = _counts(present, posts)
    total = counts.sum(axis=0)
    prior = PRIOR * total / total.sum()
    best = np.zeros(len(names))
    for y in counts:
        score = _z(y, total - y, y.sum(), (total - y).sum(), prior, PRIOR)
        best = np.where(np.abs(score) > np.abs(best), score, best)
    return dict(zip(names, best.tolist(), strict=True))


def presence_z(present: list[set[str]], posts: Posts) -> dict[str, float]:
    """The same with posts instead of tokens as trials: is the name present in a post of the class? Flat prior of one half."""
    names, counts = _counts(present, posts)
    sizes = np.bincount(posts.labels[posts.train], minlength=posts.classes).astype(float)
    total = counts.sum(axis=0)
    best = np.zeros(len(names))
    for y, size in zip(counts, sizes, strict=True):
        score = _z(y, total - y, size, sizes.sum() - size, np.full(len(names), 0.5), 1.0)
        best = np.where(np.abs(score) > np.abs(best), score, best)
    return dict(zip(names, best.tolist(), strict=True))


def _z(y: NDArray[np.float64], rest: NDArray[np.float64], n: float, n_rest: float, prior: NDArray[np.float64], prior_mass: float) -> NDArray[np.float64]:
    """z of the log-odds difference for counts y of n against rest of n_rest."""
    hits, others = (y + prior, rest + prior), (n + prior_mass - y - prior, n_rest + prior_mass - rest - prior)
    difference = np.log(hits[0] / others[0]) - np.log(hits[1] / others[1])
    return difference / np.sqrt(sum(1 / count for count in (*hits, *others)))
