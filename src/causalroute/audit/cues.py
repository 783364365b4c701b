"""Everything that could give a label away, as columns: present/absent cues and numbers. No label is read here.

A cue is a candidate when at least `min_count` train posts hold it and as many do not: cues of fewer posts cannot pass any bound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalroute.audit import forms, images, metadata, text
from causalroute.audit.images import Look, Seen
from causalroute.audit.posts import Bools, Posts
from causalroute.config import Audit
from causalroute.counterfactual.tokens import SURFACE

MEANING = ("word", "punctuation", "phrase", "attribute", "image cluster")
"""Kinds that may be the meaning itself (a cluster gathers pictures of like content): listed as associations, never as shortcuts."""

PAIR = "surface pair"
"""Two neighbouring tokens that both carry no meaning."""


@dataclasses.dataclass(frozen=True)
class Present:
    """W present/absent cues."""

    names: list[str]
    kinds: list[str]
    matrix: Any
    """(n, W) CSC of 0 and 1"""
    rows: Bools
    """(n,) train posts that significance is counted on"""
    parents: NDArray[np.int32] | None = None
    """(W, 2) for bigrams: columns of their two tokens in the group before"""


@dataclasses.dataclass(frozen=True)
class Numbers:
    """V numbers per post."""

    names: list[str]
    kinds: list[str]
    values: NDArray[np.float64]
    """(n, V); NaN where unknown"""
    rows: Bools
    """(n,) train posts that significance is counted on"""


Group = Present | Numbers


@dataclasses.dataclass(frozen=True)
class Gathered:
    """All candidates, and the raw material that probes read too."""

    groups: list[Group]
    encoded: text.Encoded
    images: NDArray[np.float64] | None
    """(n, 12) image numbers"""


def gather(posts: Posts, looks: Sequence[Look], settings: Audit) -> Gathered:
    """Candidates of every kind that the posts offer."""
    encoded = text.encode(posts.texts)
    distinct = posts.distinct(posts.keys)
    groups: list[Group] = [*_tokens(posts, encoded, distinct, settings), *_forms(posts, encoded, distinct, settings)]
    numbers = None
    if any(posts.images):
        numbers = images.table(looks)
        groups += _images(posts, looks, numbers, settings)
    if posts.features is not None:
        clusters = metadata.clusters(posts.features, settings.seed)
        groups.append(_named(posts, [{name} if name else set() for name in clusters], "image cluster", posts.train, settings))
    if any(posts.attributes):
        words = text.encode([words or "" for words in posts.attributes])
        groups.append(_counted(posts, words.keys, ["attribute"] * len(words.keys), text.tokens(words), posts.train, settings)[0])
    groups += _metadata(posts, settings)
    return Gathered([group for group in groups if group.names], encoded, numbers)


def _counted(posts: Posts, names: Sequence[str], kinds: Sequence[str], matrix: Any, rows: Bools, settings: Audit) -> tuple[Present, NDArray[np.int64]]:
    """Candidates among the columns of `matrix`, in order of name, and their columns."""
    matrix = text.binary(matrix.tocsc())
    held = np.asarray(matrix[posts.train].sum(axis=0)).ravel()
    kept = np.flatnonzero((held >= settings.min_count) & (posts.train.sum() - held >= settings.min_count))
    order = sorted(kept.tolist(), key=lambda column: names[column])
    return Present([names[i] for i in order], [kinds[i] for i in order], matrix[:, order], rows), np.array(order, dtype=np.int64)


def _named(posts: Posts, held: Sequence[set[str]], kind: str, rows: Bools, settings: Audit) -> Present:
    """Candidates among names that each post holds a set of."""
    order = sorted(set().union(*held))
    index = {name: column for column, name in enumerate(order)}
    places = [(row, index[name]) for row, names in enumerate(held) for name in names]
    at = np.array(places, dtype=np.int64).reshape(-1, 2)
    return _counted(posts, order, [kind] * len(order), text.counts(at[:, 0], at[:, 1], (len(held), len(order))), rows, settings)[0]


def _tokens(posts: Posts, encoded: text.Encoded, distinct: Bools, settings: Audit) -> list[Group]:
    single, kept = _counted(posts, encoded.keys, encoded.kinds, text.tokens(encoded), distinct, settings)
    column = np.full(len(encoded.keys), -1, dtype=np.int32)
    column[kept] = np.arange(len(kept))
    codes, matrix = text.bigrams(encoded, column >= 0)
    names = [f"{encoded.keys[a]} {encoded.keys[b]}" for a, b in codes.tolist()]
    kinds = [_pair(encoded.kinds[a], encoded.kinds[b]) for a, b in codes.tolist()]
    double, places = _counted(posts, names, kinds, matrix, distinct, settings)
    return [single, dataclasses.replace(double, parents=column[codes[places]].reshape(-1, 2))]


def _pair(first: str, second: str) -> str:
    """A pair of tokens that carry no meaning carries none."""
    outside = {first, second} - {"punctuation"}
    return PAIR if outside and outside <= set(SURFACE) else "phrase"


def _forms(posts: Posts, encoded: text.Encoded, distinct: Bools, settings: Audit) -> list[Group]:
    """Does a post hold a token of a surface kind at all, how is it written, how long is it?"""
    held, numbers = forms.read(posts.texts)
    for row, code in zip(encoded.rows.tolist(), encoded.codes.tolist(), strict=True):
        if (kind := encoded.kinds[code]) in SURFACE and encoded.keys[code] != text.PLACEHOLDER:
            held[row].add(f"has {kind}")
    length = np.bincount(encoded.rows, minlength=encoded.texts).astype(float)
    values = np.column_stack([length, numbers])
    return [_named(posts, held, "form", distinct, settings), Numbers(list(forms.NUMBERS), ["form"] * values.shape[1], values, distinct)]


def _images(posts: Posts, looks: Sequence[Look], numbers: NDArray[np.float64], settings: Audit) -> list[Group]:
    there = np.array([isinstance(look, Seen) for look in looks])
    distinct = posts.distinct([look.sha256 if isinstance(look, Seen) else None for look in looks]) & there
    files = _named(posts, [set(look.facts) if isinstance(look, Seen) else set() for look in looks], "image file", distinct, settings)
    presence = _named(posts, [{"has image"} if one else set() for one in there], "image file", posts.train, settings)
    return [Numbers(list(images.NAMES), ["image"] * len(images.NAMES), numbers, distinct), files, presence]


def _metadata(posts: Posts, settings: Audit) -> list[Group]:
    groups: list[Group] = []
    for name, cells in posts.metadata.items():
        held, numbers = metadata.column(name, cells)
        groups.append(_named(posts, held, "metadata", posts.train, settings))
        if numbers is not None:
            groups.append(Numbers([name], ["metadata"], numbers[:, None], posts.train))
    return groups
