"""Donors: train posts of another class, drawn per post from its own random substream.

The draw depends on the seed, the side and the post's id alone, so that adding a post or a class changes no other post's donors needlessly.
A post of a test split has no label here; any train post may lend to it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from causalroute.counterfactual.posts import Posts
from causalroute.rng import generator

CANDIDATES = 128
"""Donors drawn per post, of which the best are taken."""


class Donors:
    """Pools of lenders, one per class to be avoided.

    Args:
        posts: M posts.
        seed: of the draw.
        side: "text" or "image"; the two draw independently.
        usable: (M,) posts that may lend, besides being train posts.
    """

    def __init__(self, posts: Posts, seed: int, side: str, usable: NDArray[np.bool_]) -> None:
        self.posts, self.seed, self.side = posts, seed, side
        rows = np.flatnonzero(posts.train & usable)
        self.pools = {label: rows[posts.labels[rows] != label] for label in set(posts.labels.tolist())}

    def draw(self, row: int, count: int, score: Callable[[NDArray[np.int64]], NDArray[np.float64]]) -> list[int]:
        """Rows of `count` donors for post `row`, distinct where the pool allows; [] where it is empty.

        Args:
            row: the post to be changed.
            count: K.
            score: rows of candidates -> the higher the better; ties keep the order of the draw.
        """
        pool = self.pools[self.posts.labels[row]]
        pool = pool[pool != row]
        if not len(pool):
            return []
        draws = pool[generator(self.seed, self.side, self.posts.ids[row]).integers(0, len(pool), CANDIDATES)]
        drawn = draws[np.sort(np.unique(draws, return_index=True)[1])]
        best = drawn[np.argsort(-score(drawn), kind="stable")].tolist()
        return [best[i % len(best)] for i in range(count)]
