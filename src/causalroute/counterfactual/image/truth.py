"""The generator's own core box, or the true mark of injected images: for grading and for labelled oracle rows only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.config import Editor
from causalroute.counterfactual.donors import Donors
from causalroute.counterfactual.image.edit import SCHEMA
from causalroute.counterfactual.pixels import pack_mask
from causalroute.counterfactual.posts import Posts
from causalroute.data.overlays import parts, region
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
            f"{len(missing)} posts have no known truth, the first is {missing[0]!r}",
            where="editors: image: truth",
            fix="use it on planted or injected data",
        )
    return np.stack([ellipse(boxes[name], side) for name in ids])


def ellipse(box: NDArray[np.float64], side: int) -> NDArray[np.bool_]:
    """Cells whose centre lies in the ellipse inscribed in `box` = (x0, y0, x1, y1), fractions of the image."""
    at = (np.arange(side) + 0.5) / side
    x0, y0, x1, y1 = box
    across = (at[None, :] - (x0 + x1) / 2) / max((x1 - x0) / 2, 1e-9)
    down = (at[:, None] - (y0 + y1) / 2) / max((y1 - y0) / 2, 1e-9)
    return across**2 + down**2 <= 1.0


def redraw(posts: Posts, overlays: Sequence[str], editor: Editor) -> pl.DataFrame:
    """Exact counterfactuals of M injected images: the same photo under the mark of a post of another class.

    Args:
        posts: M posts.
        overlays: the mark on each, empty for none.
        editor: how many swaps, and the seed of the donors.

    Returns:
        M rows as `edit_images` gives them; the mask is what the mark leaves of the photo (a tint leaves all of it, and so does no mark).
    """
    marks = np.array(overlays, dtype=np.str_)
    donors = Donors(posts, editor.seed, "image", marks != "")
    rows = []
    for row, own in enumerate(overlays):
        chosen = donors.draw(row, editor.swaps, (marks != own).astype(np.float64).__getitem__)
        lent = [posts.ids[donor] for donor in chosen] or [posts.ids[row]] * editor.swaps
        mask = photo(own)
        rows.append((pack_mask(mask), len(mask), lent, editor.fill, float(mask.mean()), bool(chosen) and bool((marks[chosen] != own).all())))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def photo(overlay: str) -> NDArray[np.bool_]:
    """Cells in which the photo is seen through or beside a mark."""
    kind = parts(overlay)[0] if overlay else "tint"
    return region("tint") if kind == "tint" else ~region(kind)
