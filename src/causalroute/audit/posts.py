"""The posts an audit reads: train and valid, each with label, text, image path and whatever else the table says of it.

Significance is counted on distinct contents: a text that was posted thirty times is one observation of its words, not thirty. The first post with a text
stands for it, whatever its label, so that under independence of text and label nothing leans to either class. Counts and shares are of all posts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.data.duplicates import components, exact_pairs, normalise
from causalroute.errors import UserError

Bools = NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Posts:
    """n posts of train and valid."""

    ids: list[str]
    texts: list[str]
    labels: NDArray[np.int64]
    """(n,) class numbers"""
    classes: tuple[str, ...]
    train: Bools
    """(n,) train posts; the others are valid"""
    images: list[str | None]
    """paths relative to the root"""
    attributes: list[str | None]
    """published words of the image, where there are any"""
    metadata: Mapping[str, list[str | None]] = dataclasses.field(default_factory=dict)
    """further columns of the table by name"""
    features: NDArray[np.float64] | None = None
    """(n, D) image features of a backbone"""
    overlays: list[str] = dataclasses.field(default_factory=list)
    """marks drawn on the images of injected data; empty elsewhere"""
    keys: list[str] = dataclasses.field(default_factory=list)
    """normalised texts: equal for equal texts"""

    def __post_init__(self) -> None:
        if not self.keys:
            object.__setattr__(self, "keys", [normalise(text) for text in self.texts])
        if len(set(self.labels[self.train].tolist())) < 2:
            fix = "an audit needs labelled train posts of two classes: check the label column"
            raise UserError("the train split holds fewer than two classes", where=f"{int(self.train.sum())} train posts", fix=fix)

    def one_hot(self) -> Any:
        """(C, n) sparse: which post is of which class."""
        from scipy.sparse import csr_matrix

        shape = (len(self.classes), len(self.labels))
        return csr_matrix((np.ones(len(self.labels)), (self.labels, np.arange(len(self.labels)))), shape=shape)

    def sizes(self, where: Bools) -> NDArray[np.float64]:
        """(C,) posts of each class."""
        return np.bincount(self.labels[where], minlength=len(self.classes)).astype(float)

    def majority(self) -> dict[str, Any]:
        """The commonest class of train and its share."""
        sizes = self.sizes(self.train)
        return {"class": self.classes[int(sizes.argmax())], "share": float(sizes.max() / sizes.sum())}

    def distinct(self, keys: Sequence[str | None]) -> Bools:
        """(n,) train posts that are the first with their key; posts without a key stand for themselves."""
        seen: set[str] = set()
        first = np.zeros(len(keys), dtype=bool)
        for row in np.flatnonzero(self.train).tolist():
            key = keys[row]
            first[row] = not key or key not in seen
            seen.add(key or "")
        return first

    def kin(self, images: Sequence[str | None]) -> NDArray[np.int64]:
        """(n,) group of each post: posts with the same text or the same image (by hash) are of one group."""
        return components(len(self.ids), [*exact_pairs(self.keys), *exact_pairs(images)])


def from_manifest(manifest: pl.DataFrame, classes: Sequence[str]) -> Posts:
    """The labelled posts of a manifest; no row of a test split is looked at."""
    rows = manifest.filter(pl.col("split").is_in(["train", "valid"]))
    texts = [text or "" for text in rows["text"]]
    train = (rows["split"] == "train").to_numpy()
    labels = rows["label"].cast(pl.Int64).to_numpy()
    overlays = rows["overlay"].fill_null("").to_list() if "overlay" in rows.columns else []
    return Posts(rows["id"].to_list(), texts, labels, tuple(classes), train, rows["image"].to_list(), rows["attributes"].to_list(), overlays=overlays)
