"""Unimodal probes, cross-fitted: how far does one side of a post alone tell its label?

Every post is judged by a model that did not see it (nor a post with the same text). Accuracy comes with a Wilson interval and the majority share beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalroute.rng import generator

STRENGTH = 2.0
"""Inverse regularisation of the logistic regressions."""
WIDEST = 100_000
"""Most frequent 1- and 2-grams kept."""
Z95 = 1.959964
"""Normal quantile of a 95 % interval."""


def assign_folds(labels: NDArray[np.int64], groups: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each post: (n,). Stratified by label; posts of one group (same text) share a fold."""
    fold: dict[str, int] = {}
    turn: dict[int, int] = {}
    for row in generator(seed, "audit folds").permutation(len(labels)):
        if groups[row] not in fold:
            label = int(labels[row])
            fold[groups[row]] = turn.get(label, 0) % folds
            turn[label] = turn.get(label, 0) + 1
    return np.array([fold[group] for group in groups])


def words_probe(texts: Sequence[Sequence[str]], labels: NDArray[np.int64], fold: NDArray[np.int64]) -> dict[str, float]:
    """TF-IDF of 1- and 2-grams of token keys and logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    def features(train: NDArray[np.bool_]) -> tuple[Any, Any]:
        vectorizer = TfidfVectorizer(analyzer=_grams, min_df=2, sublinear_tf=True, max_features=WIDEST)
        fitted = vectorizer.fit_transform([texts[row] for row in np.flatnonzero(train).tolist()])
        return fitted, vectorizer.transform([texts[row] for row in np.flatnonzero(~train).tolist()])

    return _cross_fit(features, labels, fold)


def _grams(keys: Sequence[str]) -> list[str]:
    return [*(keys or ["<none>"]), *(f"{first} {second}" for first, second in pairwise(keys))]


def numbers_probe(values: NDArray[np.float64], labels: NDArray[np.int64], fold: NDArray[np.int64]) -> dict[str, float]:
    """Logistic regression on standardised numbers (n, W)."""

    def features(train: NDArray[np.bool_]) -> tuple[Any, Any]:
        mean, scale = values[train].mean(axis=0), values[train].std(axis=0) + 1e-9
        return (values[train] - mean) / scale, (values[~train] - mean) / scale

    return _cross_fit(features, labels, fold)


def _cross_fit(features: Any, labels: NDArray[np.int64], fold: NDArray[np.int64]) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression

    right = np.zeros(len(labels), dtype=bool)
    for held_out in np.unique(fold):
        train = fold != held_out
        fitted, judged = features(train)
        model = LogisticRegression(C=STRENGTH, max_iter=1000).fit(fitted, labels[train])
        right[~train] = model.predict(judged) == labels[~train]
    return score(int(right.sum()), len(right), labels)


def score(right: int, items: int, labels: NDArray[np.int64]) -> dict[str, float]:
    """Accuracy, its Wilson interval (Wilson, 1927) and the majority share."""
    share, square = right / items, Z95**2
    centre = (share + square / (2 * items)) / (1 + square / items)
    half = Z95 * np.sqrt(share * (1 - share) / items + square / (4 * items**2)) / (1 + square / items)
    majority = float(np.bincount(labels).max() / len(labels))
    return {"accuracy": share, "low": float(centre - half), "high": float(centre + half), "majority": majority, "items": items}
