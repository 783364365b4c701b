"""Fills that need more than a mean: Telea's inpainting (An Image Inpainting Technique Based on the Fast Marching Method, 2004), by OpenCV.

    fill(p) = sum over known q near p of w(p, q) (v_q + grad v_q (p - q)),    from the rim of the hole inwards

It carries edges and stripes some way into the hole, where a pull-push fill (`pixels.inpaint`) is smooth; deep holes end in streaks. Holes are filled on a
small copy of the image, so that the time does not grow with its size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 128
"""Longer side, in pixels, of the copy on which holes are filled."""
LEAST = 4
"""Shorter side of the copy, at least: OpenCV reads beyond the edge of an image of one row, and its answer changes from call to call."""
RADIUS = 3
"""Pixels around p that count as near."""
BLANK = (128, 128, 128)
"""The fill of an image of which nothing is known."""


def telea(image: Image.Image, core: NDArray[np.bool_]) -> Image.Image:
    """An image of the same size whose core pixels are painted in from those around it.

    Args:
        image: RGB.
        core: (height, width), True = to be filled; colours under it are never read.
    """
    import cv2

    if core.all():
        return Image.new("RGB", image.size, BLANK)
    scale = min(1.0, SIDE / max(image.size))
    size = (max(LEAST, round(image.width * scale)), max(LEAST, round(image.height * scale)))
    hole = np.asarray(Image.fromarray(core).convert("L").resize(size, Image.Resampling.BOX)) > 0  # (h, w): any core in the cell
    if hole.all():
        return Image.new("RGB", image.size, tuple(int(value) for value in np.asarray(image)[~core].mean(axis=0).round()))
    small = np.where(hole[..., None], 0, np.asarray(image.resize(size, Image.Resampling.BOX))).astype(np.uint8)
    filled = cv2.inpaint(small, hole.astype(np.uint8), RADIUS, cv2.INPAINT_TELEA)
    return Image.fromarray(filled.astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR)
