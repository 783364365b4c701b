"""Control: the middle of the image, without a look at it. Photographers put what matters there, and so does many a generator."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def find_cores(count: int, share: float, side: int) -> NDArray[np.bool_]:
    """The ellipse around the centre that covers `share` of the image, `count` times: (M, side, side). An ellipse of the image is a disc of the grid."""
    at = (np.arange(side) + 0.5) / side - 0.5
    disc = at[:, None] ** 2 + at[None, :] ** 2 <= share / np.pi
    return np.repeat(disc[None], count, axis=0)
