"""What an editor may see of the posts: texts, and labels of the train split alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.counterfactual.tokens import Token, tokenize_many
from causalroute.errors import UserError

UNKNOWN = -1
"""Label of a post of a test split."""


@dataclasses.dataclass(frozen=True)
class Posts:
    """M posts in manifest order, cut into tokens."""

    ids: list[str]
    """M unique names"""
    texts: list[str]
    """M texts (or attribute words)"""
    tokens: list[list[Token]]
    """M token lists"""
    labels: NDArray[np.int64]
    """(M,) class numbers, UNKNOWN where the manifest hides them"""
    train: NDArray[np.bool_]
    """(M,) True for the train split: donors and estimates come from it alone"""

    @property
    def classes(self) -> int:
        """Number of classes seen in the train split."""
        return int(self.labels[self.train].max(initial=-1)) + 1


def edited(manifest: pl.DataFrame) -> pl.DataFrame:
    """The rows that get counterfactuals: all but the oracle's."""
    return manifest.filter(~pl.col("split").str.starts_with("oracle"))


def posts_of(rows: pl.DataFrame, column: str = "text", what: str = "the train split holds") -> Posts:
    """Posts of `rows`, their text taken from `column` (`text` or `attributes`); `what` begins the error.

    Raises:
        UserError: the train split knows fewer than two classes, so that nothing can be told apart.
    """
    texts = [text or "" for text in rows[column]]
    labels = rows["label"].fill_null(UNKNOWN).cast(pl.Int64).to_numpy()
    train = (rows["split"] == "train").to_numpy()
    if len(set(labels[train].tolist()) - {UNKNOWN}) < 2:
        raise UserError(f"{what} fewer than two classes", where="manifest.parquet", fix="counterfactuals need labelled train posts of two classes")
    return Posts(rows["id"].to_list(), texts, tokenize_many(texts), labels, train)
