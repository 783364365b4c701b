"""Unimodal probes, cross-fitted: how far does one side of a post alone tell its label?

Every post is judged by a model that did not see it, nor a post with the same text or image. Accuracy comes with a Wilson interval and the majority
share beside it; `explained` is the share of the label's entropy that the probe takes away (1 - log loss / log loss of the class shares).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalroute.audit.cues import Gathered, Numbers, Present
from causalroute.audit.posts import Posts
from causalroute.audit.text import Encoded, bigrams, encode, tokens
from causalroute.counterfactual.probes import wilson
from causalroute.counterfactual.tokens import SURFACE
from causalroute.rng import generator

STRENGTH = 2.0
"""Inverse regularisation of the logistic regressions."""
WIDEST = 100_000
"""Most frequent 1- and 2-grams kept."""
Features = Callable[[NDArray[np.bool_]], Any]
"""Training posts -> features of all posts, fitted on the training posts alone."""


def assign_folds(labels: NDArray[np.int64], groups: Sequence[Any], folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each post: (n,). Stratified by label; posts of one group (same text or image) share a fold."""
    fold: dict[Any, int] = {}
    turn: dict[int, int] = {}
    for row in generator(seed, "audit folds").permutation(len(labels)):
        if groups[row] not in fold:
            label = int(labels[row])
            fold[groups[row]] = turn.get(label, 0) % folds
            turn[label] = turn.get(label, 0) + 1
    return np.array([fold[group] for group in groups])


def probes(posts: Posts, gathered: Gathered, fold: NDArray[np.int64]) -> dict[str, Any]:
    """Accuracy of each side alone: text, surface, image statistics, image features, attributes, metadata, has image; whatever there is."""
    found = {"text": _words(gathered.encoded, posts, fold), "surface": _surface(posts, gathered, fold)}
    if gathered.images is not None:
        files = [group for group in gathered.groups if isinstance(group, Present) and group.kinds[0] == "image file"]
        found["image statistics"] = _cross_fit(_numbers(gathered.images, files), posts, fold)
    if posts.features is not None:
        found["image features"] = _cross_fit(_numbers(posts.features, []), posts, fold)
    if any(posts.attributes):
        found["attributes"] = _words(encode([words or "" for words in posts.attributes]), posts, fold)
    extra = [group for group in gathered.groups if group.kinds[0] == "metadata"]
    if extra:
        values = [group.values for group in extra if isinstance(group, Numbers)]
        numbers = np.column_stack(values) if values else np.zeros((len(posts.ids), 0))
        found["metadata"] = _cross_fit(_numbers(numbers, [group for group in extra if isinstance(group, Present)]), posts, fold)
    there = np.array([path is not None for path in posts.images])
    if there.any() and not there.all():
        found["has image"] = _cross_fit(_numbers(there[:, None].astype(float), []), posts, fold)
    return found


def _words(encoded: Encoded, posts: Posts, fold: NDArray[np.int64]) -> dict[str, Any]:
    """TF-IDF of 1- and 2-grams of token keys and logistic regression."""
    from scipy.sparse import hstack

    single = tokens(encoded)
    _, double = bigrams(encoded, np.ones(len(encoded.keys), dtype=bool))
    return _cross_fit(_weighted(_frequent(hstack([single, double]).tocsc())), posts, fold)


def _surface(posts: Posts, gathered: Gathered, fold: NDArray[np.int64]) -> dict[str, Any]:
    """Surface tokens, forms and lengths, without any word."""
    from scipy.sparse import csr_matrix, hstack

    encoded = gathered.encoded
    surface = np.array([kind in SURFACE for kind in encoded.kinds], dtype=bool)
    bag = _weighted(_frequent(tokens(encoded).tocsc()[:, np.flatnonzero(surface)]))
    forms = [group for group in gathered.groups if group.kinds[0] == "form"]
    values = [group.values for group in forms if isinstance(group, Numbers)]
    plain = _numbers(np.column_stack(values), [group for group in forms if isinstance(group, Present)])
    return _cross_fit(lambda train: hstack([bag(train), csr_matrix(plain(train))]).tocsr(), posts, fold)


def _frequent(matrix: Any) -> Any:
    """Columns of at least two posts, the most frequent ones where they are too many."""
    held = np.diff(matrix.indptr)
    order = np.argsort(-held, kind="stable")[:WIDEST]
    return matrix[:, np.sort(order[held[order] >= 2])].tocsr()


def _weighted(matrix: Any) -> Features:
    from sklearn.feature_extraction.text import TfidfTransformer

    if not matrix.shape[1]:
        return lambda train: matrix
    return lambda train: TfidfTransformer(sublinear_tf=True).fit(matrix[train]).transform(matrix)


def _numbers(values: NDArray[np.float64], present: Sequence[Present]) -> Features:
    """Standardised numbers with a mark where one is unknown, and present/absent cues."""
    unknown = ~np.isfinite(values)
    marks = [unknown[:, unknown.any(axis=0) & ~unknown.all(axis=0)], *(np.asarray(group.matrix.todense()) for group in present)]

    def features(train: NDArray[np.bool_]) -> NDArray[np.float64]:
        known = np.where(unknown, np.nan, values)[:, ~unknown[train].all(axis=0)]
        mean = np.nanmean(known[train], axis=0)
        filled = np.where(np.isnan(known), mean, known)
        return np.column_stack([(filled - mean) / (filled[train].std(axis=0) + 1e-9), *marks])

    return features


class Judged:
    """Sums up out-of-fold guesses."""

    def __init__(self, labels: NDArray[np.int64]) -> None:
        self.labels, self.right, self.loss, self.base = labels, 0, 0.0, 0.0

    def add(self, tested: NDArray[np.bool_], guess: NDArray[np.float64], shares: NDArray[np.float64]) -> None:
        """Counts in the probabilities (m, C) of the tested posts, and those of the class shares."""
        labels, at = self.labels[tested], np.arange(int(tested.sum()))
        self.right += int((guess.argmax(axis=1) == labels).sum())
        self.loss -= float(np.log(np.maximum(guess[at, labels], 1e-9)).sum())
        self.base -= float(np.log(shares[at, labels]).sum())

    def explained(self) -> float:
        """1 - log loss / log loss of the class shares."""
        return 1 - self.loss / self.base if self.base else 0.0


def tellable(posts: Posts, where: NDArray[np.bool_]) -> bool:
    """Whether the posts `where` are of two classes at least; not so where one group of twins takes all posts of a class."""
    return int((posts.sizes(where) > 0).sum()) > 1


def _cross_fit(features: Features, posts: Posts, fold: NDArray[np.int64]) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression

    judged = Judged(posts.labels)
    for held_out in np.unique(fold):
        tested = fold == held_out
        base = posts.sizes(~tested) + 0.5
        shares = np.tile(base / base.sum(), (int(tested.sum()), 1))
        guess = shares.copy()
        made = features(~tested) if tellable(posts, ~tested) else None
        if made is not None and made.shape[1]:
            model = LogisticRegression(C=STRENGTH, max_iter=500, tol=1e-3).fit(made[~tested], posts.labels[~tested])
            guess = np.full_like(shares, 1e-9)
            guess[:, model.classes_] = model.predict_proba(made[tested])
        judged.add(tested, guess, shares)
    return score(judged.right, len(posts.labels), posts.labels) | {"explained": judged.explained()}


def score(right: int, items: int, labels: NDArray[np.int64]) -> dict[str, float]:
    """Accuracy, its Wilson interval (Wilson, 1927) and the majority share."""
    found = wilson(right, items)
    majority = float(np.bincount(labels).max() / len(labels))
    return {"accuracy": found["value"], "low": found["low"], "high": found["high"], "majority": majority, "items": items}
