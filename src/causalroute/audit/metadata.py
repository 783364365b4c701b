"""Columns of a table beside text, image and label as cues; and clusters of image features.

A column is numeric when nine tenths of its filled cells are numbers and it has more than a few values; else each of its values is a cue.
A column of mostly different values (an address, a caption, an OCR text) is asked only whether it is filled and how long it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEW = 12
"""Numeric columns of at most this many values are taken value by value."""
MOSTLY = 0.9
CLUSTERS = 20
"""k of the k-means on image features."""
LONGEST_NAME = 60


def _number(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        return np.nan
    return value if np.isfinite(value) else np.nan


def column(name: str, cells: Sequence[str | None]) -> tuple[list[set[str]], NDArray[np.float64] | None]:
    """Present/absent names of each row (`name=value`, `name is filled`), and a number per row where the column has one."""
    filled = [(cell or "").strip() for cell in cells]
    values = Counter(cell for cell in filled if cell)
    total = sum(values.values())
    held = [{f"{name} is filled"} if cell else set() for cell in filled]
    numbers = np.array([_number(cell) if cell else np.nan for cell in filled])
    if len(values) > FEW and np.isfinite(numbers).sum() >= MOSTLY * total:
        return held, numbers
    if len(values) > max(FEW, total / 2):
        return held, np.array([float(len(cell)) if cell else np.nan for cell in filled])
    return [names | {f"{name}={cell[:LONGEST_NAME]}"} if cell else names for names, cell in zip(held, filled, strict=True)], None


def clusters(features: NDArray[np.float64], seed: int) -> list[str]:
    """The k-means cluster of each row of (n, D) features; an empty name where the features are not finite."""
    from sklearn.cluster import MiniBatchKMeans

    known = np.isfinite(features).all(axis=1)
    names = [""] * len(features)
    if known.sum() < CLUSTERS:
        return names
    scale = np.linalg.norm(features[known], axis=1, keepdims=True) + 1e-9
    found = MiniBatchKMeans(CLUSTERS, random_state=seed, n_init=3, batch_size=1024).fit_predict(features[known] / scale)
    for row, cluster in zip(np.flatnonzero(known).tolist(), found.tolist(), strict=True):
        names[row] = f"cluster {cluster}"
    return names
