"""What an image editor is asked, and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from causalroute.counterfactual.posts import Posts
from causalroute.counterfactual.sources import Sources

Found = tuple[NDArray[np.bool_], NDArray[np.uint8]]
"""Core masks (M, m, m), True = core, and thumbnails (M, m, m, 3): the images squeezed to the size of their masks."""


@dataclasses.dataclass(frozen=True)
class Task:
    """M posts that have an image, and how their cores are to be found."""

    posts: Posts
    """the M posts; labels of the train split alone are known"""
    core_texts: list[str]
    """M texts without their context tokens (t_c)"""
    image: Callable[[int], Image.Image]
    """row -> RGB image"""
    sources: Sources
    """what may be used besides"""
    share: float
    """rho: share of the image that starts as core"""
    side: int
    """m, cells of a mask per axis"""
    seed: int
    """of the random editors and of the fusion head"""
