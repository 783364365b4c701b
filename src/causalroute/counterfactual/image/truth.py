"""The generator's own core box: for grading and for labelled oracle rows only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.errors import UserError


def find_cores(ids: Sequence[str], truth: pl.DataFrame, side: int) -> NDArray[np.bool_]:
    """The ellipse inscribed in the core box of each post: (M, side, side).

    Raises:
        UserError: a post has no truth.
    """
    boxes = {name: np.array(box) / size for name, box, size in truth.select("id", "core_box", "image_size").iter_rows()}
    missing = [name for name in ids if name not in boxes]
    if missing:
        raise UserError(
            f"{len(missing)} posts have no known truth, the first is {missing[0]!r}", where="editors: image: truth", fix="use it on planted data only"
        )
    return np.stack([ellipse(boxes[name], side) for name in ids])


def ellipse(box: NDArray[np.float64], side: int) -> NDArray[np.bool_]:
    """Cells whose centre lies in the ellipse inscribed in `box` = (x0, y0, x1, y1), fractions of the image."""
    at = (np.arange(side) + 0.5) / side
    x0, y0, x1, y1 = box
    across = (at[None, :] - (x0 + x1) / 2) / max((x1 - x0) / 2, 1e-9)
    down = (at[:, None] - (y0 + y1) / 2) / max((y1 - y0) / 2, 1e-9)
    return across**2 + down**2 <= 1.0
