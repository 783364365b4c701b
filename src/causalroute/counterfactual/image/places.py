"""Core masks found by place: what sits at the same spot of many images and goes with their class is no part of what a photo shows.

    s(p) = max over channels of eta2(p),    eta2 = 1 - SSW / SST

eta2 is the share of the variance of a colour at cell p that the class explains: SSW and SST are the sums of squares within the classes and in all over n train
images. Cells with s(p) above BAR, and above what chance does to one of all cells in ALPHA of such data sets (eta2 ~ Beta((C - 1) / 2, (n - C) / 2)), are
context, in every image the same; so are gaps of one or two cells between them, for a pattern has cells that look alike in all classes. The rest is core.
The visual twin of the lexicon: it finds borders, logos, corner marks and banners, and nothing that moves about. A tint is at every place, so that nothing is
left as core and no swap is usable. As the context is a place and not an outline, masks have no rim. Letters: M posts, m cells per axis, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from causalroute.counterfactual.posts import Posts

BAR = 0.1
"""Photos of different classes differ a little in light and hue: in MVSA-Single no cell exceeds .01."""
ALPHA = 0.01


def find_cores(posts: Posts, thumbnails: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The same mask for all posts.

    Args:
        posts: M posts; labels of the train split are read, no others.
        thumbnails: (M, m, m, 3) squeezed images.

    Returns:
        (M, m, m), True = core.
    """
    labels = posts.labels[posts.train]
    share = explained(thumbnails[posts.train], labels)
    chance = stats.beta.isf(ALPHA / (3 * share.size), (posts.classes - 1) / 2, max(1, len(labels) - posts.classes) / 2)
    marked = np.pad(share > max(BAR, chance), 1, mode="edge")
    core = ~ndimage.binary_closing(marked, np.ones((3, 3), dtype=bool))[1:-1, 1:-1]
    return np.repeat(core[None], len(thumbnails), axis=0)


def explained(thumbnails: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """s(p) of n images with labels (n,): (m, m); 0 where a cell is the same in all of them."""
    within = sum((_squares(thumbnails[labels == label]) for label in np.unique(labels)), np.zeros(()))
    total = _squares(thumbnails)
    return np.asarray(np.where(total > 0, 1 - within / np.where(total > 0, total, 1), 0).max(axis=-1))


def _squares(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Sum of squared distances from the mean image: (m, m, 3)."""
    values = images.astype(np.float32)
    return np.asarray(((values - values.mean(axis=0)) ** 2).sum(axis=0), dtype=np.float64)
