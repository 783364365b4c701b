"""Pixel edits of one image: core filled, background removed, core moved to another post's background.

    v_s    = (1 - M) * v + M * fill(v, M)                  context only
    v_c    = C * v + (1 - C) * grey                        core only
    v_swap = C * v + (1 - C) * ((1 - M') * v' + M' * inpaint(v', M'))      own core on a donor's background
    v_0    = blur(mean over train images)                  no treatment

M is the core mask of the image, M' and v' belong to the donor. A mask is a boolean (m, m) grid, True = core, laid over the image whatever its
size (nearest). C = inner(M) is M without its rim: M is drawn wide, so that no core is left where it is removed, and its rim holds own background,
which would tell the own context wherever the core is shown. The rim belongs to neither side. Nothing here is random and nothing is stored: a
counterfactual image is made from its mask when it is loaded.

The donor's core is never filled with one flat colour: that leaves its silhouette on the new background, a mark that only edited images carry.
It is interpolated from the pixels around it (pull-push, Gortler et al., The Lumigraph, 1996): averages of the known pixels are pulled up a pyramid
and pushed back down into the hole, linear in the number of pixels, and free of the core's own colours.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

from causalroute.counterfactual.fills import telea
from causalroute.errors import UserError

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

BLUR = 8
"""The blur radius of the reference image is its side divided by this."""
RIM = 2
"""Cells that a core loses on each side before it is shown elsewhere: one by which masks are dilated and one that edges share with the background."""
LEAST = 1 / 3
"""Share of the cells of a mask that must survive; a core too small or too thin for that keeps more of its rim."""
GREY = (128, 128, 128)
"""What surrounds a core that is shown alone: no hue, middle brightness, the same for all posts."""
FILL_GRID = 64
"""Longer side, in pixels, of the grid on which holes are interpolated; the fill is smooth, so a finer one would look the same."""
REFERENCE_SIDE = 128
"""Side of the reference image in pixels."""


def pack_mask(mask: Mask) -> bytes:
    """Bits of an (m, m) mask, row by row, eight to a byte."""
    return np.packbits(mask.astype(bool), axis=None).tobytes()


def unpack_mask(bits: bytes, side: int) -> Mask:
    """The (side, side) mask of `pack_mask`.

    Raises:
        UserError: the number of bytes does not fit `side`.
    """
    if len(bits) != (side * side + 7) // 8:
        raise UserError(f"a mask of {side} x {side} bits does not fit {len(bits)} bytes", fix="make the counterfactuals again")
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=side * side).reshape(side, side).astype(bool)


def spread(mask: Mask, size: tuple[int, int]) -> Mask:
    """The mask at the size (width, height) of an image, nearest cell: (height, width)."""
    width, height = size
    rows = (np.arange(height) * mask.shape[0]) // height
    columns = (np.arange(width) * mask.shape[1]) // width
    return mask[rows][:, columns]


def inner(mask: Mask) -> Mask:
    """C: the mask without its rim, RIM cells or as many as leave LEAST of it; the border of the image is no edge."""
    least, core = LEAST * int(mask.sum()), mask
    for _ in range(RIM):
        eroded = ndimage.binary_erosion(core, border_value=1)
        if eroded.sum() < max(1.0, least):
            break
        core = eroded
    return core


def fill_core(image: Image.Image, mask: Mask, fill: str) -> Image.Image:
    """v_s: the image without its core.

    Args:
        image: RGB.
        mask: (m, m), True = core.
        fill: "mean", the mean colour outside the core; "blur", interpolated from the pixels around it; "telea", painted in from the rim (`fills.py`).

    Raises:
        UserError: another `fill`.
    """
    core = spread(mask, image.size)
    if fill == "blur":
        return _paste(image, inpaint(image, core), core)
    if fill == "telea":
        return _paste(image, telea(image, core), core)
    if fill != "mean":
        raise UserError(f"unknown fill {fill!r}", where="editors: fill", fix="choose 'mean', 'blur' or 'telea'")
    pixels = np.asarray(image)
    known = pixels[~core] if not core.all() else pixels.reshape(-1, 3)
    colour = tuple(int(value) for value in known.mean(axis=0).round())
    return _paste(image, Image.new("RGB", image.size, colour), core)


def isolate_core(image: Image.Image, mask: Mask, rim: bool = True) -> Image.Image:
    """v_c: the core on plain grey. A blurred background would keep its mean colour, which is context.

    Args:
        image: RGB.
        mask: (m, m), True = core.
        rim: whether the mask has a rim that is not shown.
    """
    return _paste(Image.new("RGB", image.size, GREY), image, spread(inner(mask) if rim else mask, image.size))


def transplant(image: Image.Image, mask: Mask, background: Image.Image, rim: bool = True) -> Image.Image:
    """v_swap: the core of `image`, without its rim, on a `background_of` a donor.

    Args:
        image: RGB; the result has its size.
        mask: (m, m), True = core of `image`.
        background: RGB of the size of `image`.
        rim: whether the mask has a rim that is not shown.
    """
    return _paste(background, image, spread(inner(mask) if rim else mask, image.size))


def background_of(donor: Image.Image, donor_mask: Mask, size: tuple[int, int], fill: str) -> Image.Image:
    """What a donor lends: its image at `size`, with its own core filled.

    Args:
        donor: RGB of any size.
        donor_mask: (m', m'), True = core of `donor`.
        size: (width, height) of the image that gets it.
        fill: as for `fill_core`.
    """
    return fill_core(donor.resize(size, Image.Resampling.BILINEAR), donor_mask, fill)


def reference(images: Iterable[Image.Image]) -> Image.Image:
    """v_0: the blurred mean of the images, REFERENCE_SIDE pixels wide and high.

    Raises:
        UserError: there is no image.
    """
    total, count = np.zeros((REFERENCE_SIDE, REFERENCE_SIDE, 3)), 0
    for image in images:
        total += np.asarray(image.convert("RGB").resize((REFERENCE_SIDE, REFERENCE_SIDE), Image.Resampling.BILINEAR))
        count += 1
    if not count:
        raise UserError("no image to take the mean of", fix="check the train split of the manifest")
    mean = Image.fromarray((total / count).round().astype(np.uint8))
    return mean.filter(ImageFilter.GaussianBlur(REFERENCE_SIDE / BLUR))


def inpaint(image: Image.Image, core: Mask) -> Image.Image:
    """An image of the same size whose core pixels are interpolated from those around it.

    Args:
        image: RGB.
        core: (height, width), True = to be filled.
    """
    scale = min(1.0, FILL_GRID / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    hole = Image.fromarray(core).convert("L").resize(size, Image.Resampling.BOX)
    known = 1.0 - np.asarray(hole, dtype=np.float32) / 255.0  # (h, w): share of known pixels in the cell
    black = _paste(image, Image.new("RGB", image.size), core)
    premultiplied = np.asarray(black.resize(size, Image.Resampling.BOX), dtype=np.float32)
    filled = _pull_push(premultiplied, known)
    return Image.fromarray(filled.clip(0, 255).round().astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR)


def _pull_push(colour: Floats, weight: Floats) -> Floats:
    """Premultiplied colour (h, w, 3) and weight (h, w) in [0, 1] -> colour without holes (h, w, 3)."""
    if weight.min() >= 1.0:
        return colour
    if weight.size == 1:
        return colour / max(float(weight[0, 0]), 1e-6)
    height, width = weight.shape
    pad = ((0, height % 2), (0, width % 2))
    total = _blocks(np.pad(colour, (*pad, (0, 0))))
    mass = _blocks(np.pad(weight, pad))
    share = np.minimum(mass, 1.0) / np.maximum(mass, 1e-6)
    coarse = _pull_push((total * share[..., None]).astype(np.float32), np.minimum(mass, 1.0))
    return colour + (1.0 - weight)[..., None] * _double(coarse)[:height, :width]


def _blocks(grid: Floats) -> Floats:
    """Sums over 2 x 2 cells."""
    return grid[::2, ::2] + grid[1::2, ::2] + grid[::2, 1::2] + grid[1::2, 1::2]


def _double(grid: Floats) -> Floats:
    """Twice the size, linear between cells: (h, w, 3) -> (2h, 2w, 3)."""
    for axis in (0, 1):
        before = np.concatenate([grid.take([0], axis), grid.take(range(grid.shape[axis] - 1), axis)], axis)
        after = np.concatenate([grid.take(range(1, grid.shape[axis]), axis), grid.take([-1], axis)], axis)
        pair = np.stack([0.75 * grid + 0.25 * before, 0.75 * grid + 0.25 * after], axis + 1)
        shape = list(grid.shape)
        shape[axis] *= 2
        grid = pair.reshape(shape)
    return grid


def _paste(base: Image.Image, top: Image.Image, where: Mask) -> Image.Image:
    """`top` where `where` (height, width) is True, `base` elsewhere."""
    return Image.composite(top, base, Image.fromarray(where))
