"""Linear probes that judge counterfactuals, cross-fitted: every post is judged by a probe that saw neither it nor a post of the same group.

    linear    W = argmin sum_i w_i |onehot(y_i) - W x_i - b|^2 + RIDGE |W|^2     w_i ~ 1 / n(y_i), sum 1: classes count alike
    balanced  mean over classes of the share read rightly; any constant answer gets 1 / C, whatever the class sizes
    AUC       P(a generated input scores above a real one) + ties / 2; the interval counts posts, not inputs (Obuchowski, 1997)

Letters: n posts, D width, C classes, R readings of the same posts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from causalroute.data.duplicates import components, exact_pairs
from causalroute.rng import generator

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

RIDGE = 0.1
"""Penalty of the linear probe on standardised features, per post."""
Z95 = 1.959964
"""Normal quantile of a 95 % interval."""
HASHED = 2**16
"""Slots of the bag of words."""
RESAMPLES = 400
"""Bootstrap resamples of a ratio."""
CELL = 5
"""Posts that a cell needs to count."""


class Interval(TypedDict):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def folds_of(groups: Sequence[tuple[str, ...]], folds: int, seed: int) -> Rows:
    """Fold of each post: (n,). Posts that share any of their keys (same text, same image), directly or through others, share a fold."""
    held = [(row, key) for row, keys in enumerate(groups) for key in keys]
    pairs = ((held[a][0], held[b][0]) for a, b in exact_pairs([key for _, key in held]))
    names, component = np.unique(components(len(groups), pairs), return_inverse=True)
    order = generator(seed, "gate folds").permutation(max(1, len(names)))
    return (order % folds)[component].astype(np.int64)


def linear_scores(train: Floats, labels: Rows, judged: Sequence[Floats], classes: int) -> list[Floats]:
    """Class scores of a linear probe.

    Args:
        train: (n, D) features to fit on, standardised here.
        labels: (n,) their classes.
        judged: R arrays (m, D) to score.
        classes: C.

    Returns:
        R arrays (m, C).
    """
    mean, scale = standard(train)
    x = (train - mean) / scale
    weight = 1.0 / np.maximum(1, np.bincount(labels, minlength=classes))[labels]
    weight /= weight.sum()
    target = np.eye(classes)[labels]
    x_mean, y_mean = weight @ x, weight @ target
    centred = x - x_mean
    gram = (centred * weight[:, None]).T @ centred
    gram[np.diag_indices_from(gram)] += RIDGE
    slope = np.linalg.solve(gram, (centred * weight[:, None]).T @ (target - y_mean))
    return [((one - mean) / scale - x_mean) @ slope + y_mean for one in judged]


def standard(x: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each feature of (n, D); a feature that never varies is only centred."""
    scale = x.std(axis=0)
    return x.mean(axis=0), np.where(scale > 1e-6, scale, 1.0)


def read_classes(real: Floats, others: Sequence[Floats], labels: Rows, fold: Rows, classes: int) -> list[Rows]:
    """Classes that linear probes fitted on the real side read in held-out posts: R + 1 arrays (n,), the real ones first."""
    found = [np.zeros(len(labels), dtype=np.int64) for _ in range(len(others) + 1)]
    for held_out in np.unique(fold):
        out = fold == held_out
        scores = linear_scores(real[~out], labels[~out], [one[out] for one in (real, *others)], classes)
        for answer, score in zip(found, scores, strict=True):
            answer[out] = score.argmax(axis=1)
    return found


def told_apart(real: Floats, generated: Floats, fold: Rows) -> Interval:
    """AUC of a linear probe that tells the generated version of a held-out post from real ones; both versions share a fold."""
    scores = np.zeros((2, len(fold)))
    for held_out in np.unique(fold):
        out = fold == held_out
        both = np.concatenate([real[~out], generated[~out]])
        made = np.repeat([0, 1], int((~out).sum()))
        scores[:, out] = [score[:, 1] for score in linear_scores(both, made, [real[out], generated[out]], 2)]
    return auc(scores[0], scores[1])


def words_apart(real: Sequence[str], generated: Sequence[str], fold: Rows) -> Interval:
    """The same from a bag of 1- and 2-grams; texts are token keys joined by spaces."""
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression

    before, after = bag(real), bag(generated)
    scores = np.zeros((2, len(fold)))
    for held_out in np.unique(fold):
        out = fold == held_out
        both = vstack([before[~out], after[~out]]).tocsr()
        model = LogisticRegression(C=10.0, solver="liblinear").fit(both, np.repeat([0, 1], int((~out).sum())))
        scores[0, out], scores[1, out] = model.decision_function(before[out]), model.decision_function(after[out])
    return auc(scores[0], scores[1])


def bag(texts: Sequence[str]) -> Any:
    """Unit-length counts of 1- and 2-grams in hashed slots: (n, HASHED) sparse."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), n_features=HASHED, alternate_sign=False).transform(texts).tocsr()


def auc(real: Floats, generated: Floats) -> Interval:
    """AUC of paired scores (n,), (n,); the standard error counts each post once (Obuchowski, 1997)."""
    n = len(real)
    above_real = _share_below(real, generated)
    below_generated = 1 - _share_below(generated, real)
    value = float(above_real.mean())
    spread = above_real + below_generated - 2 * value
    half = Z95 * float(np.sqrt(np.square(spread).sum() / (n * max(1, n - 1))))
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}


def _share_below(pool: Floats, values: Floats) -> Floats:
    """Share of `pool` that lies below each value, ties half."""
    ordered = np.sort(pool)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * len(pool))


def balanced(right: NDArray[np.bool_], labels: Rows) -> Interval:
    """Balanced accuracy with an Agresti-Coull interval in each class: (n,), (n,)."""
    classes = np.unique(labels)
    items = np.array([(labels == c).sum() for c in classes], dtype=np.float64)
    hits = np.array([right[labels == c].sum() for c in classes], dtype=np.float64)
    share = (hits + 2) / (items + 4)
    half = Z95 * float(np.sqrt((share * (1 - share) / (items + 4)).sum())) / len(classes)
    value, centre = float((hits / items).mean()), float(share.mean())
    return {"value": value, "low": max(0.0, min(value, centre - half)), "high": min(1.0, max(value, centre + half))}


def wilson(hits: int, items: int) -> Interval:
    """A share with its Wilson interval (Wilson, 1927); of no items, that of one."""
    from scipy.stats import binomtest

    found = binomtest(hits, max(1, items)).proportion_ci(method="wilson")
    return {"value": hits / max(1, items), "low": float(found.low), "high": float(found.high)}


def words_read(train: Sequence[str], labels: Rows, judged: Sequence[str]) -> Rows:
    """Classes that a bag of words fitted on `train` reads in `judged`."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10.0, max_iter=300, class_weight="balanced").fit(bag(train), labels)
    return np.asarray(model.predict(bag(judged)), dtype=np.int64)


def resamples(posts: int, seed: int) -> Floats:
    """How often each post is drawn: (1 + RESAMPLES, n), first each post once."""
    drawn = generator(seed, "gate resamples", posts).multinomial(posts, np.full(posts, 1 / max(1, posts)), size=RESAMPLES)
    return np.concatenate([np.ones((1, posts)), drawn])


def over_cells(right: NDArray[np.bool_], cells: Rows, weights: Floats) -> Floats:
    """Mean over cells of the share read rightly, in every resample: (1 + RESAMPLES,). Cells of fewer than CELL posts do not count."""
    names, counts = np.unique(cells, return_counts=True)
    member = (cells[:, None] == names[counts >= CELL]).astype(np.float64)  # (n, cells)
    total = weights @ member
    hits = weights @ (member * right[:, None])
    held = total > 0
    return np.asarray(np.where(held, hits / np.maximum(total, 1), 0).sum(axis=1) / np.maximum(1, held.sum(axis=1)))


def skill_ratio(part: Floats, whole: Floats, chance: float) -> Interval:
    """(part - chance) / (whole - chance) of two results of `over_cells` on the same resamples; a `whole` near chance makes the interval wide."""
    ratio = (part - chance) / np.maximum(whole - chance, 1e-3)
    return spread(ratio)


def spread(values: Floats) -> Interval:
    """The first value with the 95 % range of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return {"value": float(values[0]), "low": float(min(low, values[0])), "high": float(max(high, values[0]))}
