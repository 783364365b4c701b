"""From heat maps to core masks: what all editors that look at a model share.

An editor gives the heat of a batch, `Heat`: pixels (B, 3, H, W) and the rows they belong to -> (B, h, w), not negative. Maps are computed on the image
squeezed to a square, so that one grid serves every aspect ratio; the part of it that the backbone's own preprocessing crops away gets no heat.
A batch is a forward pass of the backbone's own size: with gradients a convolutional network keeps some 70 MB of activations for each image of 224 x 224.
Letters: M posts, B of them in a batch, H and W pixels, m mask cells per side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from causalroute.counterfactual.image.refine import core_masks
from causalroute.counterfactual.image.task import Found
from causalroute.features.backbone import Backbone
from causalroute.features.threads import ordered_map
from causalroute.features.window import Window, crop_window

SQUARE = 256
"""Largest side in pixels of the squeezed image that a backbone's preprocessing gets."""
Heat = Callable[[torch.Tensor, list[int]], torch.Tensor]


def find_cores(
    backbone: Backbone, image: Callable[[int], Image.Image], count: int, heat: Heat, share: float, side: int, threads: int = 1, window: Window | None = None
) -> Found:
    """Core masks and thumbnails of M = `count` images.

    Args:
        backbone: prepares the pixels.
        image: row -> RGB image.
        count: M.
        heat: the editor's map, see above.
        share: rho of `refine.core_masks`.
        side: m.
        threads: batches worked on at a time; changes no bit of the result.
        window: part of a square that reaches the model; found out where it is not known (`square_window`).
    """
    seen = window or square_window(backbone)

    def work(rows: range) -> Found:
        squares = [squeeze(image(row)) for row in rows]
        pixels = torch.stack([backbone.preprocess(square) for square in squares])
        warm = place(heat(pixels, list(rows)), seen, side)
        thumbnails = np.stack([np.asarray(square.resize((side, side), Image.Resampling.BOX)) for square in squares])
        return core_masks(warm, thumbnails, share), thumbnails

    with ThreadPoolExecutor(threads) as pool:
        masks, small = zip(*ordered_map(pool, work, _batches(count, backbone.image_batch), threads + 1), strict=True)
    return np.concatenate(masks), np.concatenate(small)


def square_window(backbone: Backbone) -> Window:
    """Part of a squeezed image that reaches the model."""
    return crop_window(backbone, (SQUARE, SQUARE))


def _batches(count: int, size: int) -> Iterator[range]:
    for first in range(0, count, size):
        yield range(first, min(first + size, count))


def squeeze(image: Image.Image) -> Image.Image:
    """The whole image as a square of its longer side, at most SQUARE."""
    side = min(max(image.size), SQUARE)
    return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BILINEAR)


def place(heat: torch.Tensor, window: tuple[float, float, float, float], side: int) -> NDArray[np.float64]:
    """Mean heat (B, H, W) per cell of the whole square, zero outside `window`: (B, side, side)."""
    x0, y0, x1, y1 = (round(edge * side) for edge in window)
    inner = torch.nn.functional.adaptive_avg_pool2d(heat[:, None], (max(1, y1 - y0), max(1, x1 - x0)))[:, 0]
    full = torch.zeros(len(heat), side, side)
    full[:, y0 : y0 + inner.shape[1], x0 : x0 + inner.shape[2]] = inner
    return full.numpy().astype(np.float64)
