"""Numbers of an image that have nothing to do with what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from causalroute.data.images import open_image

NAMES = ("warmth", "greenness", "brightness", "saturation", "contrast", "width", "height", "aspect", "kilobytes")
"""warmth: mean red - blue; greenness: mean green - (red + blue) / 2; brightness: mean of channels; saturation: mean of max - min channel;
contrast: standard deviation of brightness; width, height in pixels; aspect: width / height; kilobytes: size of the file"""
SIDE = 32
"""Pixels per side of the thumbnail that colours are taken from."""


def statistics(root: Path, paths: Sequence[str | None]) -> NDArray[np.float64]:
    """NAMES of each image: (n, 9); a row of NaN where there is none."""
    return np.array([(np.nan,) * len(NAMES) if path is None else _numbers(root, path) for path in paths])


def _numbers(root: Path, path: str) -> tuple[float, ...]:
    image = open_image(root, path)
    width, height = image.size
    pixels = np.asarray(image.resize((SIDE, SIDE)), dtype=np.float64)
    red, green, blue = pixels.mean(axis=(0, 1))
    light = pixels.mean(axis=-1)
    saturation = float((pixels.max(axis=-1) - pixels.min(axis=-1)).mean())
    size = (root / path).stat().st_size / 1024
    return red - blue, green - (red + blue) / 2, light.mean(), saturation, light.std(), width, height, width / height, size
