"""Negative control: a random disc that covers the share of the image that the saliency editor starts from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from causalroute.rng import generator


def find_cores(ids: Sequence[str], share: float, side: int, seed: int) -> NDArray[np.bool_]:
    """One disc per post at a random place inside the image: (M, side, side); the draw depends on `seed` and the id alone."""
    radius = side * np.sqrt(share / np.pi)
    low, high = min(radius, side / 2), max(side - radius, side / 2)
    centres = np.array([generator(seed, "random image", name).uniform(low, high, 2) for name in ids]).reshape(-1, 2)
    at = np.arange(side) + 0.5
    rows, columns = at[None, :, None] - centres[:, 0, None, None], at[None, None, :] - centres[:, 1, None, None]
    return rows**2 + columns**2 <= radius**2
