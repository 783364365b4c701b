"""Scores and effects in one unit: log-odds against the class prior.

    contrast(s)_y = s_y - s_other             two classes: log-odds of y
    contrast(s)_y = s_y                       more classes: log-probability of y
    effect(s)     = contrast(log softmax s) - contrast(log prior)

Letters: B batch, C classes.
"""

from __future__ import annotations

from torch import Tensor


def contrast(scores: Tensor) -> Tensor:
    """(..., C) -> (..., C): log-odds for two classes, unchanged for more."""
    return scores - scores.flip(-1) if scores.shape[-1] == 2 else scores


def effect(scores: Tensor, log_prior: Tensor) -> Tensor:
    """Effect of what produced `scores` (B, C) against the prior (C,), "no treatment"."""
    return contrast(scores.log_softmax(-1)) - contrast(log_prior)


def to_scores(effects: Tensor) -> Tensor:
    """Effects as an addition to class scores: the inverse of `contrast` up to a constant per item, (B, C) -> (B, C)."""
    return effects / 2 if effects.shape[-1] == 2 else effects


def strength(effects: Tensor) -> Tensor:
    """How far a direct effect can move the decision: the range over classes of what it adds to the scores, (B, C) -> (B,); |log-odds| for two classes."""
    scores = to_scores(effects)
    return scores.amax(-1) - scores.amin(-1)
