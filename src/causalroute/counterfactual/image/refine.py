"""From a saliency map to a core mask: smooth, threshold, sharpen by colour, take one piece, dilate.

    prior(p) = SLOPE (rank(s(p)) - (1 - rho))     s smoothed saliency, rank in [0, 1]: rho of the cells start as core
    colour(p) = log(F(c_p) / B(c_p))              F, B colour histograms inside and outside the piece found last, the largest salient one at first
    piece     = largest piece of  G * (colour + prior) > 0,  holes filled; ROUNDS times
    core      = piece dilated by one cell

The share of cells decides where to look, the colours decide how large the core is. Where both histograms are alike, colour(p) is near 0 and the prior
decides; where the sharpened piece is a fraction or a multiple of the salient one, colour has found something else and the piece before it is kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BINS = 8
"""Colour histogram bins per channel."""
SLOPE = 1.0
"""Log-odds between the coldest and the hottest cell. Ranks, not heights: how peaked gradients are differs from backbone to backbone."""
ROUNDS = 2
"""Times that colours are told from the piece found last (GrabCut, Rother et al. 2004, with histograms and without its graph cut). The salient piece mixes
core and background; from the second round on the histograms are nearly pure."""
CLIP = 3.0
"""Bound on the colour log-odds of one cell."""
SMOOTH = 12
"""The map is smoothed by its side over this many."""
KEEP = (0.2, 1.5)
"""Sharpened size over salient size outside of which the piece before is kept."""


def core_masks(saliency: Floats, thumbnails: NDArray[np.uint8], share: float) -> Bools:
    """Core masks of B images.

    Args:
        saliency: (B, m, m), not negative.
        thumbnails: (B, m, m, 3) the images at the same size.
        share: rho, share of cells that start as core.

    Returns:
        (B, m, m), True = core.
    """
    side = saliency.shape[1]
    smooth = ndimage.gaussian_filter(saliency, (0, side / SMOOTH, side / SMOOTH), mode="nearest") + 1e-12
    prior = SLOPE * (rankdata(smooth.reshape(len(smooth), -1), axis=1).reshape(smooth.shape) / side**2 - (1 - share))
    salient = _largest(prior > 0, smooth)
    core = salient
    for _ in range(ROUNDS):
        evidence = ndimage.gaussian_filter(_colour(thumbnails, core) + prior, (0, 1, 1), mode="nearest")
        sharpened = _largest(evidence > 0, smooth)
        ratio = sharpened.sum(axis=(1, 2)) / np.maximum(salient.sum(axis=(1, 2)), 1)
        sound = (ratio >= KEEP[0]) & (ratio <= KEEP[1])
        core = np.where(sound[:, None, None], sharpened, core)
    return ndimage.binary_dilation(core, ndimage.generate_binary_structure(2, 1)[None])


def _colour(thumbnails: NDArray[np.uint8], inside: Bools) -> Floats:
    """Log-ratio of the smoothed colour histograms inside and outside, at each cell: (B, m, m), within +-CLIP."""
    count, cells = len(thumbnails), BINS**3
    bins = (thumbnails.astype(np.int64) * BINS) // 256
    index = ((bins[..., 0] * BINS + bins[..., 1]) * BINS + bins[..., 2]).reshape(count, -1)
    flat = (index + cells * np.arange(count)[:, None]).ravel()
    logs = []
    for where in (inside, ~inside):
        histogram = np.bincount(flat, where.ravel(), count * cells).reshape(count, BINS, BINS, BINS)
        for axis in (1, 2, 3):
            histogram = ndimage.convolve1d(histogram, [0.25, 0.5, 0.25], axis=axis, mode="constant")
        total = histogram.sum(axis=(1, 2, 3), keepdims=True)
        logs.append(np.log(histogram / np.maximum(total, 1e-9) + 1e-4).ravel()[flat])
    return np.clip(logs[0] - logs[1], -CLIP, CLIP).reshape(inside.shape)


def _largest(masks: Bools, weight: Floats) -> Bools:
    """The connected piece with the largest total weight of each mask, holes filled."""
    return np.stack([_piece(mask, heat) for mask, heat in zip(masks, weight, strict=True)])


def _piece(mask: Bools, weight: Floats) -> Bools:
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    totals = ndimage.sum_labels(weight, labels, range(1, count + 1))
    return ndimage.binary_fill_holes(labels == 1 + int(np.argmax(totals)))
