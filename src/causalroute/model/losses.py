"""Losses over a grid of views: first axis text (own, swapped), second axis visual side (own, swapped).

    L = sum_i [CE(x_i) + r (q_T CE(x_T) + q_V CE(x_V) + q_TV CE(x_TV))] / sum of all weights

Letters: B batch, C classes, r ramp in [0, 1], q gates, x_T, x_V, x_TV the post with its text, visual or both contexts swapped.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def ramp(progress: float, start: float, end: float) -> float:
    """Weight of the swap terms: 0 until `start`, 1 from `end` on, linear between; arguments are shares of all steps."""
    if progress >= end:
        return 1.0
    return max(0.0, (progress - start) / max(end - start, 1e-9))


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Per-item cross-entropy of scores (..., B, C) against labels (B,): (..., B)."""
    wanted = labels.expand(scores.shape[:-1])
    return functional.cross_entropy(scores.flatten(0, -2), wanted.flatten(), reduction="none").view(wanted.shape)


def generalized_cross_entropy(scores: Tensor, labels: Tensor, q: float) -> Tensor:
    """(1 - p_y^q) / q per item, scores (..., B, C) -> (..., B): between cross-entropy (q -> 0) and mean absolute error (q = 1), Zhang and Sabuncu 2018."""
    return (1 - (-q * cross_entropy(scores, labels)).exp()) / q


def swap_weights(text: Tensor, image: Tensor, both: Tensor, strength: float) -> Tensor:
    """(2, 2, B) weights of x, x_V / x_T, x_TV: the post itself counts 1, its swaps `strength` times their gate."""
    return torch.stack([torch.ones_like(text), strength * image, strength * text, strength * both]).view(2, 2, -1)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """sum(values weights) / sum(weights) over everything; both (2, 2, B)."""
    return (values * weights).sum() / weights.sum()
