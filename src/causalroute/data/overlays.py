"""Marks that are drawn on an image while it is loaded: the visual cues of injected data (docs/injected.md). No file is copied or changed.

    v'(x, y) = paint_k(x, y) where region(kind) holds (x, y), v(x, y) elsewhere          border, corner
    v'(x, y) = (1 - TINT) v(x, y) + TINT colour(k)                                       tint

k is the class that the mark stands for, paint_k its colour and white in stripes or checks of its own: a network trained on photos hardly looks at a patch of
plain colour. Regions and patterns are grids laid over the image whatever its shape (nearest cell, as core masks are), so that a mark keeps its
place when an image is squeezed. A manifest names a mark as "<kind>:<k>".
"""

from __future__ import annotations

import colorsys
import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from causalroute.errors import UserError

KINDS = ("border", "corner", "tint")
GRID = 32
"""Cells per side of a region."""
BORDER = 3
"""Cells that a border is wide: a backbone that crops a sixteenth away on each side still sees a third of it."""
CORNER = (18, 29)
"""Cells of a corner mark, right and low: far enough inside to survive that crop, for the most part also on a photo of 4 to 3."""
FINE = 4
"""Steps of a pattern per cell and axis."""
TINT = 0.35
"""Share of the colour in a tinted image."""
HUES = (0.08, 0.618)
"""Hue of the first mark and the step to the next one: by steps of the golden ratio any number of hues lie well apart."""
WHITE = (250, 250, 250)


def name(kind: str, cue: int) -> str:
    """How a manifest names the mark of class `cue`."""
    return f"{kind}:{cue}"


def parts(overlay: str) -> tuple[str, int]:
    """Kind and class of a mark.

    Raises:
        UserError: no mark has this name.
    """
    kind, _, cue = overlay.partition(":")
    if kind not in KINDS or not cue.isdecimal():
        raise UserError(f"unknown overlay {overlay!r}", where="manifest.parquet: overlay", fix=f"one of {', '.join(KINDS)}, a colon, a class number")
    return kind, int(cue)


def colour(cue: int) -> tuple[int, int, int]:
    """The colour of the mark of class `cue`."""
    red, green, blue = colorsys.hsv_to_rgb((HUES[0] + cue * HUES[1]) % 1.0, 0.85, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


@functools.cache
def region(kind: str, side: int = GRID) -> NDArray[np.bool_]:
    """(side, side) True where a mark of the kind is drawn; a tint is everywhere."""
    cells = np.ones((GRID, GRID), dtype=bool)
    if kind == "border":
        cells[BORDER:-BORDER, BORDER:-BORDER] = False
    elif kind == "corner":
        inside = (np.arange(GRID) >= CORNER[0]) & (np.arange(GRID) < CORNER[1])
        cells = inside[:, None] & inside[None, :]
    at = ((2 * np.arange(side) + 1) * GRID) // (2 * side)
    return cells[at][:, at]


@functools.cache
def pattern(cue: int) -> NDArray[np.bool_]:
    """(GRID * FINE, GRID * FINE) True where the mark of class `cue` has its colour, False where it is white: four patterns take turns."""
    row, column = np.indices((GRID * FINE, GRID * FINE))
    bands = (row // 4, column // 4, row // 6 + column // 6, (row + column) // 4)
    return bands[cue % len(bands)] % 2 == 0


def _spread(grid: NDArray[np.bool_], size: tuple[int, int]) -> Image.Image:
    """The grid at a size (width, height), nearest cell, as a mask."""
    rows, columns = ((np.arange(length) * len(grid)) // length for length in size[::-1])
    return Image.fromarray(grid[rows][:, columns])


def draw(image: Image.Image, overlay: str) -> Image.Image:
    """The image (RGB) with its mark; an empty `overlay` draws none.

    Raises:
        UserError: no mark has this name.
    """
    if not overlay:
        return image
    kind, cue = parts(overlay)
    paint = Image.new("RGB", image.size, colour(cue))
    if kind == "tint":
        return Image.blend(image, paint, TINT)
    paint.paste(WHITE, mask=_spread(~pattern(cue), image.size))
    return Image.composite(paint, image, _spread(region(kind), image.size))
