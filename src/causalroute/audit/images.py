"""What an image tells without being looked at: colours, size, coding, file, and how much of it looks like lettering.

Each file is opened once. JPEG files are decoded at a fraction of their size where that is enough, so numbers of big photos cost no more than of small ones.

JPEG quality   the q whose luminance table, standard table x s / 100 with s = 5000 / q below 50 and 200 - 2q from there on, has the sum of the file's table
text-like      share of the picture inside boxes that closed strokes form: flat, wide, well filled. A statistic of strokes, not a reader:
               fences and windows can raise it, handwriting can escape it
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from causalroute.data.images import FORMATS, MAX_PIXELS, ImageError, open_image, perceptual_hash, resolve
from causalroute.data.overlays import draw
from causalroute.io import sha256_file

NAMES = (
    "warmth", "greenness", "brightness", "saturation", "contrast", "width", "height", "aspect", "kilobytes", "JPEG quality", "edges", "text-like",
)  # fmt: skip
"""warmth: mean red - blue; greenness: mean green - (red + blue) / 2; brightness: mean of channels; saturation: mean of max - min channel;
contrast: standard deviation of brightness; width, height in pixels; aspect: width / height; kilobytes: size of the file; JPEG quality: 1 to 100,
unknown for other files; edges: share of pixels on an edge; text-like: share of the picture in boxes that look like lines of text"""
SIDE = 32
"""Pixels per side of the thumbnail that colours are taken from."""
DRAFT = 192
"""Pixels of the shorter side that a decoded JPEG keeps at least; edges are looked for at this size."""
STANDARD = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
"""Luminance table of the JPEG standard (quality 50)."""
EDGE = 48
"""Grey levels that the 3 x 3 pixels around an edge span at least."""
GREY = 2.0
"""Saturation below which a picture has no colour."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """One sound image file."""

    sha256: str
    """of the file's bytes"""
    perceptual: int
    """64-bit perceptual hash"""
    numbers: tuple[float, ...]
    """NAMES"""
    facts: frozenset[str]
    """format, mode, size, and what else holds of the file"""


Look = Seen | ImageError | None


def inspect(root: Path, paths: Sequence[str | None], overlays: Sequence[str] = ()) -> list[Look]:
    """Looks at each image once, several at a time; None where there is no path, the error where the file cannot be used.

    Args:
        root: folder that the paths are relative to.
        paths: n paths.
        overlays: the mark that is drawn on each (injected data); none where left out.
    """
    shown = list(zip(paths, overlays or [""] * len(paths), strict=True))
    unique = [(path, overlay) for path, overlay in dict.fromkeys(shown) if path is not None]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        seen = pool.map(lambda one: _safely(root, *one), unique, chunksize=32)
        found: dict[tuple[str | None, str], Look] = dict(zip(unique, seen, strict=True))
    return [found.get(one) for one in shown]


def _safely(root: Path, path: str, overlay: str) -> Look:
    try:
        return look(root, path, overlay)
    except ImageError as error:
        return error


def look(root: Path, path: str, overlay: str = "") -> Seen:
    """Numbers, facts and hashes of one image; numbers and perceptual hash are of what is shown, its mark included.

    Raises:
        ImageError: as `open_image`.
    """
    file = resolve(root, path)
    facts, quality, size = _header(file)
    image = draw(_pixels(root, path), overlay)
    grey = _grey(image)
    width, height = size or image.size
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    red, green, blue = pixels.mean(axis=(0, 1))
    light = pixels.mean(axis=-1)
    saturation = float((pixels.max(axis=-1) - pixels.min(axis=-1)).mean())
    colours = (red - blue, green - (red + blue) / 2, light.mean(), saturation, light.std())
    numbers = (*colours, width, height, width / height, file.stat().st_size / 1024, quality, *_strokes(grey))
    facts |= {f"size {width} x {height}"} | ({"grey picture"} if saturation < GREY else set())
    return Seen(sha256_file(file), perceptual_hash(grey), tuple(map(float, numbers)), frozenset(facts))


def _header(file: Path) -> tuple[set[str], float, tuple[int, int] | None]:
    """Facts, JPEG quality and upright size, read without decoding; what cannot be read here fails at decoding, with its reason."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            facts = {f"format {image.format}", f"mode {image.mode}"}
            facts |= {"has EXIF"} if len(image.getexif()) else set()
            facts |= {"animated"} if getattr(image, "is_animated", False) else set()
            facts |= {"progressive"} if "progressive" in image.info else set()
            facts |= {"has colour profile"} if "icc_profile" in image.info else set()
            table = getattr(image, "quantization", {}).get(0)
            turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
            return facts, _quality(table) if table else np.nan, image.size[::-1] if turned else image.size
    except Exception:  # damaged headers raise anything; decoding says the reason
        return set(), np.nan, None


@lru_cache(maxsize=1)
def _sums() -> NDArray[np.float64]:
    """(100,) sum of the luminance table of each quality from 1 on."""
    scales = [5000 // quality if quality < 50 else 200 - 2 * quality for quality in range(1, 101)]
    return np.array([np.clip((np.array(STANDARD) * scale + 50) // 100, 1, 255).sum() for scale in scales], dtype=np.float64)


def _quality(table: Sequence[int]) -> float:
    return float(np.abs(_sums() - sum(table)).argmin() + 1)


def _pixels(root: Path, path: str) -> Image.Image:
    """The upright RGB image, big JPEG photos at a fraction of their size."""
    try:
        with Image.open(resolve(root, path), formats=("JPEG",)) as image:
            if image.mode in ("RGB", "L") and image.width * image.height <= MAX_PIXELS:
                image.draft(None, (DRAFT, DRAFT))
                image.load()
                return ImageOps.exif_transpose(image).convert("RGB")
    except Exception:  # no JPEG, or a damaged one: the careful way tells which
        pass
    return open_image(root, path)


def _grey(image: Image.Image) -> Image.Image:
    """The picture without colour, its shorter side at most DRAFT."""
    grey = image.convert("L")
    scale = DRAFT / min(grey.size)
    if scale >= 1:
        return grey
    width, height = (max(1, min(4 * DRAFT, round(side * scale))) for side in grey.size)
    return grey.resize((width, height), Image.Resampling.BOX)


def _strokes(picture: Image.Image) -> tuple[float, float]:
    """Edge share and text-like share of a grey picture."""
    import cv2

    grey = np.asarray(picture)
    if min(grey.shape) < 16:
        return 0.0, 0.0
    gradient = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))  # largest - smallest of 3 x 3 pixels
    edges = float((gradient > EDGE).mean())
    level, strokes = cv2.threshold(gradient, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    if level < 24:  # nothing but noise
        return edges, 0.0
    lines = cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, np.ones((1, 9), np.uint8))
    _, _, boxes, _ = cv2.connectedComponentsWithStats(lines)
    x, _, width, height, area = np.asarray(boxes[1:], dtype=np.float64).T if len(boxes) > 1 else np.zeros((5, 0))
    flat = (height >= 5) & (height < grey.shape[0] / 4) & (width > 2 * height) & (area > 0.5 * width * height) & (x >= 0)
    return edges, float(min(1.0, (width * height)[flat].sum() / grey.size))


def table(looks: Sequence[Look]) -> NDArray[np.float64]:
    """NAMES of each image: (n, 12); a row of NaN where there is none."""
    return np.array([one.numbers if isinstance(one, Seen) else (np.nan,) * len(NAMES) for one in looks]).reshape(len(looks), len(NAMES))
