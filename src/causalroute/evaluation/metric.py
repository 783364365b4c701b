"""What a metric is: per-item terms, kept apart from their aggregation, and how its interval is built.

Every metric m is a function g of weighted sums of per-item terms,

    m_s(w) = g( sum_i w_i x_si ),      x: terms (S, N, Q),  w: item weights (N,),  g: (..., Q) -> (...)

so one matrix product gives it for every seed and every bootstrap resample at once (`statistics.resample`). With w = 1 it is the
usual value, equal to scikit-learn's where that has the metric (tested).

Letters: S seeds, N items, C classes, E experts or gates, Q terms of one metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Terms = Callable[["Items"], Array]
Value = Callable[[Array], Array]


@dataclass(frozen=True)
class Items:
    """One method's answers on the items of one split.

    `p` (S, N, C) probabilities; `labels` (N,); `views` name -> (S, N, C), NaN where an item lacks the view; `groups` family -> (N,)
    names, empty where unknown; `calibrated` (S, N, C) after temperature scaling; `rewrites` = labels (N,) and probabilities (S, N, C)
    of each item's rewrite (only where the items are originals of pairs).
    """

    labels: NDArray[np.int64]
    p: Array
    views: Mapping[str, Array] = field(default_factory=dict)
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    calibrated: Array | None = None
    rewrites: tuple[NDArray[np.int64], Array] | None = None
    majority: int = 0
    """the most frequent class of the train split"""
    prior: Array | None = None
    """(C,) shares of the classes in the train split"""
    positive: int | None = None
    """the class that positive-class metrics refer to"""
    unparsed: NDArray[np.bool_] | None = None
    """(S, N) replies of a model that name no class, counted as wrong; None for methods that do not reply"""
    weights: Mapping[str, Array] = field(default_factory=dict)
    """"gates", "experts" -> (S, N, E) what the router gave each; empty for methods without one"""

    @property
    def hits(self) -> Array:
        """(S, N) 1 where the most probable class is the label."""
        return (self.p.argmax(-1) == self.labels).astype(np.float64)


def unpaired(items: Items) -> bool:
    """Whether these are the items of a split, not the originals of pairs."""
    return items.rewrites is None


@dataclass(frozen=True)
class Metric:
    """A named metric: `terms` per item, `value` of their sums, and what its interval has to know."""

    name: str
    higher_is_better: bool | None
    """None: it describes, and neither direction is better"""
    terms: Terms
    value: Value
    bounds: tuple[float, float] = (0.0, 1.0)
    share: bool = False
    """its variance shrinks towards 0 and 1 as that of a proportion: Wilson's interval"""
    trials: Value | None = None
    """of how many items (from the sums) it is a proportion: where every answer is right, or none, the interval is binomial"""
    bias: tuple[float, float] = (0.0, 0.0)
    """for metrics with a kink (a minimum, absolute values), which noise pulls to one side: how many times the bias that the bootstrap shows is
    taken off the end that lies the other way, where the truth is likelier, and off the end on the bias's side (`statistics.estimate`)"""
    applies: Callable[[Items], bool] = unpaired


def divide(numerator: Array, denominator: Array, empty: float = 0.0) -> Array:
    """Elementwise quotient; `empty` where the denominator is 0 (scikit-learn's zero_division)."""
    safe = np.where(denominator == 0, 1.0, denominator)
    return np.where(denominator == 0, empty, numerator / safe)


def one_hot(index: NDArray[np.int64], size: int) -> Array:
    """(..., size) indicator of `index`."""
    return np.eye(size)[index]


def with_count(terms: Array) -> Array:
    """Appends a term of ones, so that `mean` can divide by the weight."""
    return np.concatenate([terms, np.ones((*terms.shape[:-1], 1))], axis=-1)


def masked(value: Any, present: Any) -> Array:
    """(S, N, 2) value where present, and the indicator of presence."""
    return np.stack([np.where(present, value, 0.0), present.astype(np.float64)], axis=-1)


def count(sums: Array) -> Array:
    """The last term's sum: how many items there are."""
    return sums[..., -1]


def mean(sums: Array) -> Array:
    """First term's sum over the last one's."""
    return divide(sums[..., 0], sums[..., -1], np.nan)
