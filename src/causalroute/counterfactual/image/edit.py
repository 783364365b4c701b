"""From core masks to rows of the counterfactual table: packed masks, donors, and whether a swap can be used.

Donors are train posts of another class, first those whose background leans to another class than the item's own: a random donor of another class often
has the very background that is to be replaced. The lean is estimated from background colours alone (`background_lean`), on the train split.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.counterfactual.donors import Donors
from causalroute.counterfactual.pixels import pack_mask
from causalroute.counterfactual.posts import Posts

USABLE = (0.02, 0.9)
"""A core mask with a smaller or larger share of the image than this found nothing."""
CHUNK = 512
"""Posts whose colours are in memory as numbers of 64 bits at a time."""
RIDGE = 1e-2
"""Penalty of the background regression, relative to standardised features."""


def edit_images(posts: Posts, masks: NDArray[np.bool_], thumbnails: NDArray[np.uint8], swaps: int, seed: int, fill: str) -> pl.DataFrame:
    """All that the image views of M posts are made from.

    Args:
        posts: M posts.
        masks: (M, m, m), True = core.
        thumbnails: (M, m, m, 3) images at the size of the masks.
        swaps: K donors per post.
        seed: of the donors.
        fill: what a core is filled with in v_s; travels with the rows.

    Returns:
        M rows: mask binary, mask_side i32, v_donor list[str] of length K, fill str, image_mask_ratio f32, image_ok bool.
    """
    ratios = masks.mean(axis=(1, 2))
    found = (ratios >= USABLE[0]) & (ratios <= USABLE[1])
    donors = Donors(posts, seed, "image", found)
    lean = background_lean(posts, masks, thumbnails)
    rows = []
    for row, mask in enumerate(masks):
        chosen = donors.draw(row, swaps, (lean != lean[row]).astype(np.float64).__getitem__)
        names = [posts.ids[donor] for donor in chosen] or [posts.ids[row]] * swaps
        rows.append((pack_mask(mask), mask.shape[0], names, fill, float(ratios[row]), bool(chosen) and bool(found[row])))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "mask": pl.Binary,
    "mask_side": pl.Int32,
    "v_donor": pl.List(pl.String),
    "fill": pl.String,
    "image_mask_ratio": pl.Float32,
    "image_ok": pl.Boolean,
}


def background_lean(posts: Posts, masks: NDArray[np.bool_], thumbnails: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Class that each background looks like: (M,). Class-balanced ridge regression on mean and spread of the colours outside the core."""
    chunks = [slice(first, first + CHUNK) for first in range(0, len(masks), CHUNK)]
    features = np.concatenate([_background_colours(masks[rows], thumbnails[rows]) for rows in chunks])
    train, labels = posts.train, posts.labels[posts.train]
    features = (features - features[train].mean(axis=0)) / (features[train].std(axis=0) + 1e-9)
    features = np.concatenate([features, np.ones((len(features), 1))], axis=1)  # (M, 7)
    weights = 1.0 / np.bincount(labels, minlength=posts.classes)[labels]
    inputs = features[train] * weights[:, None]
    penalty = RIDGE * weights.sum() * np.eye(features.shape[1])
    solved = np.linalg.solve(inputs.T @ features[train] + penalty, inputs.T @ np.eye(posts.classes)[labels])
    return np.argmax(features @ solved, axis=1)


def _background_colours(masks: NDArray[np.bool_], thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean and spread of the colours outside the core: (B, 6)."""
    outside = ~masks[..., None]
    count = np.maximum(outside.sum(axis=(1, 2)), 1)
    colours = thumbnails.astype(np.float64)
    mean = (colours * outside).sum(axis=(1, 2)) / count  # (B, 3)
    spread = np.sqrt((((colours - mean[:, None, None]) ** 2) * outside).sum(axis=(1, 2)) / count)
    return np.concatenate([mean, spread], axis=1)
