"""An OOD test made of the test posts themselves: words say nothing of the labels that they went with in train.

The idea is that of Sun et al. (Counterfactual Reasoning for Out-of-distribution Multimodal Sentiment Analysis, 2022): choose test posts so that the
correlations of words with labels differ from those of train. With n_w(c) the train posts of class c that hold word w and n(c) all of them,

    r(w, c) = log (n_w(c) + 1) / (n(c) + 2) - log (n_w(not c) + 1) / (n(not c) + 2)         what w says for c, train alone
    e_i     = sum over the words w of post i of r(w, y_i)                                   how far its words agree with its label

The agreement of a set of posts with train is the sum of its e_i, so that for given class sizes the set of least agreement is found by sorting; there is
nothing to search for. Taken are the posts with the least e, of every class the same share, the largest for which the mean e is at most 0 in every class.
Letters: y label, e evidence, r correlation.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.errors import UserError

TERM = r"\w+|[^\w\s]+"
"""Words and marks, as the bag of words counts them."""
FREQUENT = 10
"""Train posts that hold a word which counts."""


def with_ood(frame: pl.DataFrame) -> pl.DataFrame:
    """The posts, and behind them the chosen test posts once more as the split ood, named `<id>~ood`.

    Args:
        frame: usable posts, `label` a class number; no post of the split ood.

    Raises:
        UserError: no test post of some class has words that speak against its label, or an id is taken.
    """
    tests = frame.filter(split="id").sort("id")
    chosen = set(choose(evidence(frame, tests), tests["label"].to_numpy()).tolist())
    copies = tests.filter([row in chosen for row in range(tests.height)]).with_columns(split=pl.lit("ood"), id=pl.col("id") + "~ood")
    if taken := copies.filter(pl.col("id").is_in(frame["id"].implode()))["id"].to_list():
        raise UserError(f"the id {taken[0]!r} is that of another post's copy", where="params.yaml: splits.ood", fix="rename ids that end in ~ood")
    return pl.concat([frame, copies])


def evidence(frame: pl.DataFrame, tests: pl.DataFrame) -> NDArray[np.float64]:
    """e of each of the n test posts: (n,).

    Raises:
        UserError: no word is frequent.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    train = frame.filter(split="train")
    labels = train["label"].to_numpy()
    found = CountVectorizer(binary=True, min_df=FREQUENT, token_pattern=TERM)
    try:
        held = found.fit_transform(train["text"])  # (posts, words)
    except ValueError:  # scikit-learn's word for an empty vocabulary
        raise UserError(
            f"no word is in {FREQUENT} train posts", where="params.yaml: splits.ood", fix="leave splits.ood out: there is too little text"
        ) from None
    said = np.asarray(found.transform(tests["text"]) @ correlations(held, labels, int(frame["label"].to_numpy().max()) + 1))  # (n, C)
    return said[np.arange(tests.height), tests["label"].to_numpy()]


def correlations(held: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """r of the module equation: posts x words (sparse or dense, 0 or 1), labels (posts,) -> (words, C)."""
    member = np.eye(classes)[labels]  # (posts, C)
    inside, size = np.asarray(held.T @ member), member.sum(axis=0)
    outside = inside.sum(axis=1, keepdims=True) - inside
    return np.log((inside + 1) / (size + 2)) - np.log((outside + 1) / (size.sum() - size + 2))


def choose(found: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the chosen posts, in order.

    Args:
        found: (n,) e of each post.
        labels: (n,) class numbers.

    Raises:
        UserError: nothing can be chosen.
    """
    orders = [rows[np.argsort(found[rows], kind="stable")] for rows in (np.flatnonzero(labels == label) for label in np.unique(labels))]
    share = min(_prefix(found[order]) / len(order) for order in orders)
    sizes = [int(np.floor(share * len(order) + 1e-9)) for order in orders]
    if not min(sizes, default=0):
        what = "no OOD split can be made: in some class the words of every test post agree with its label"
        raise UserError(what, where="params.yaml: splits.ood", fix="use more test posts, or leave splits.ood out")
    return np.sort(np.concatenate([order[:size] for order, size in zip(orders, sizes, strict=True)]))


def _prefix(ascending: NDArray[np.float64]) -> int:
    """How many of the posts may be taken, least agreement first: their mean stays at or below 0."""
    return int((np.cumsum(ascending) <= 0).sum())
