"""Negative control: as many context tokens per post as the lexicon finds, but random ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from causalroute.counterfactual.posts import Posts
from causalroute.counterfactual.text import lexicon
from causalroute.rng import generator


def mark(posts: Posts, z: float, seed: int) -> list[NDArray[np.bool_]]:
    """True for each context token of each post; the draw depends on `seed` and the post's id alone."""
    return [_shuffle(found, seed, name) for found, name in zip(lexicon.mark(posts, z), posts.ids, strict=True)]


def _shuffle(found: NDArray[np.bool_], seed: int, name: str) -> NDArray[np.bool_]:
    return generator(seed, "random text", name).permutation(found) if found.any() else found
