"""Registry of metrics; per-item terms are kept apart from their aggregation.

Every metric m is a function g of weighted sums of per-item terms,

    m_s(w) = g( sum_i w_i x_si ),      x: terms (S, N, Q),  w: item weights (N,),  g: (..., Q) -> (...)

so one matrix product gives it for every seed and every bootstrap resample at once (`statistics.resample`). With w = 1 it is the
usual value, equal to scikit-learn's where that has the metric (tested).

Letters: S seeds, N items, C classes, Q terms of one metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Terms = Callable[["Items"], Array]
Value = Callable[[Array], Array]

BINS = 15
"""Equal-width confidence bins of the expected calibration error (Guo et al. 2017)."""
SWAPS = {"t": "swap_t", "v": "swap_v", "tv": "swap_tv"}
"""Suffix of a consistency metric -> the view it compares with the factual pair."""
HELD = {"t": "held_t", "v": "held_v", "tv": "held_tv"}
"""The same for the swaps of the editor that no method trains on."""


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
    positive: int | None = None
    """the class that positive-class metrics refer to"""
    unparsed: NDArray[np.bool_] | None = None
    """(S, N) replies of a model that name no class, counted as wrong; None for methods that do not reply"""

    @property
    def hits(self) -> Array:
        """(S, N) 1 where the most probable class is the label."""
        return (self.p.argmax(-1) == self.labels).astype(np.float64)


@dataclass(frozen=True)
class Metric:
    """A named metric: `terms` per item, `value` of their sums."""

    name: str
    higher_is_better: bool
    terms: Terms
    value: Value
    bounds: tuple[float, float] = (0.0, 1.0)
    proportion: bool = False
    """a mean of zeros and ones: a run without any variance still gets a binomial interval"""


def divide(numerator: Array, denominator: Array, empty: float = 0.0) -> Array:
    """Elementwise quotient; `empty` where the denominator is 0 (scikit-learn's zero_division)."""
    safe = np.where(denominator == 0, 1.0, denominator)
    return np.where(denominator == 0, empty, numerator / safe)


def one_hot(index: NDArray[np.int64], size: int) -> Array:
    """(..., size) indicator of `index`."""
    return np.eye(size)[index]


def confusion(items: Items) -> Array:
    """(S, N, C*C) indicator of the cell (label, answer)."""
    classes = items.p.shape[-1]
    return one_hot(items.labels * classes + items.p.argmax(-1), classes * classes)


def _square(sums: Array) -> Array:
    side = round(sums.shape[-1] ** 0.5)
    return sums.reshape(*sums.shape[:-1], side, side)


def _per_class(sums: Array) -> tuple[Array, Array, Array, Array]:
    """Precision, recall, F1 and number of items, each (..., C)."""
    cells = _square(sums)
    right = np.diagonal(cells, axis1=-2, axis2=-1)
    actual, answered = cells.sum(-1), cells.sum(-2)
    return divide(right, answered), divide(right, actual), divide(2 * right, actual + answered), actual


def accuracy(sums: Array) -> Array:
    """Share of right answers."""
    return divide(np.trace(_square(sums), axis1=-2, axis2=-1), sums.sum(-1), np.nan)


def _class_value(which: int, positive: int, sums: Array) -> Array:
    return _per_class(sums)[which][..., positive]


def _macro_value(which: int, sums: Array) -> Array:
    """Mean over the classes that occur as label or answer, as scikit-learn does."""
    cells = _square(sums)
    seen = (cells.sum(-1) + cells.sum(-2)) > 0
    return divide((_per_class(sums)[which] * seen).sum(-1), seen.sum(-1).astype(np.float64))


def f1_weighted(sums: Array) -> Array:
    """F1 averaged over classes by their number of items."""
    _, _, f1, actual = _per_class(sums)
    return divide((f1 * actual).sum(-1), actual.sum(-1))


def _with_count(terms: Array) -> Array:
    """Appends a term of ones, so that `mean` can divide by the weight."""
    return np.concatenate([terms, np.ones((*terms.shape[:-1], 1))], axis=-1)


def mean(sums: Array) -> Array:
    """First term's sum over the last one's."""
    return divide(sums[..., 0], sums[..., -1], np.nan)


def _chosen(p: Array, items: Items) -> Array:
    return np.take_along_axis(p, items.labels[None, :, None], axis=-1)[..., 0]


def _probabilities(items: Items, calibrated: bool) -> Array:
    if not calibrated:
        return items.p
    if items.calibrated is None:
        raise ValueError("calibrated probabilities are needed: fit a temperature first")
    return items.calibrated


def nll_terms(items: Items, calibrated: bool = False) -> Array:
    """(S, N, 2) -log p of the label (p floored at the smallest float32), and a one."""
    p = _chosen(_probabilities(items, calibrated), items)
    return _with_count(-np.log(np.maximum(p, np.finfo(np.float32).tiny))[..., None])


def brier_terms(items: Items, calibrated: bool = False) -> Array:
    """(S, N, 2) squared distance between p and the label's indicator, summed over classes (Brier 1950, range 0 to 2), and a one."""
    p = _probabilities(items, calibrated)
    return _with_count(((p - one_hot(items.labels, p.shape[-1])) ** 2).sum(-1, keepdims=True))


def ece_terms(items: Items, calibrated: bool = False) -> Array:
    """(S, N, BINS + 1) hit minus confidence in the item's bin, and a one."""
    p = _probabilities(items, calibrated)
    confidence = p.max(-1)
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return _with_count(one_hot(bins, BINS) * (items.hits - confidence)[..., None])


def ece(sums: Array) -> Array:
    """Expected calibration error: sum over bins of |accuracy - confidence| times the bin's share (Guo et al. 2017, eq. 3)."""
    return divide(np.abs(sums[..., :-1]).sum(-1), sums[..., -1], np.nan)


def _masked(value: Any, present: Any) -> Array:
    """(S, N, 2) value where present, and the indicator of presence."""
    return np.stack([np.where(present, value, 0.0), present.astype(np.float64)], axis=-1)


def consistency_terms(view: str, items: Items) -> Array:
    """(S, N, 2) 1 where the answer is the same for `view` as for the factual pair."""
    other = items.views[view]
    present = np.isfinite(other).all(-1)
    return _masked(np.nan_to_num(other).argmax(-1) == items.p.argmax(-1), present)


def swapped_terms(view: str, items: Items) -> Array:
    """(S, N, 2) 1 where the answer to a counterfactual post, or to its core, is right: the label is the original's."""
    other = items.views[view]
    return _masked(np.nan_to_num(other).argmax(-1) == items.labels, np.isfinite(other).all(-1))


def unparsed_terms(items: Items) -> Array:
    """(S, N, 2) 1 where a reply names no class."""
    return _with_count(np.asarray(items.unparsed, dtype=np.float64)[..., None])


def context_terms(items: Items) -> Array:
    """(S, N, 2) right from the context alone, minus right by always naming the train majority."""
    context = items.views["context"]
    excess = (np.nan_to_num(context).argmax(-1) == items.labels).astype(np.float64) - (items.labels == items.majority)
    return _masked(excess, np.isfinite(context).all(-1))


def pair_terms(items: Items) -> Array:
    """(S, N, 2) 1 where original and rewrite are both right."""
    labels, p = _rewrites(items)
    return _with_count((items.hits * (p.argmax(-1) == labels))[..., None])


def flip_terms(items: Items) -> Array:
    """(S, N, 2) among pairs whose label flips: 1 where the answer changes."""
    labels, p = _rewrites(items)
    flips = np.broadcast_to(labels != items.labels, items.hits.shape)
    return _masked(p.argmax(-1) != items.p.argmax(-1), flips)


def _rewrites(items: Items) -> tuple[NDArray[np.int64], Array]:
    if items.rewrites is None:
        raise ValueError("pair metrics need items with rewrites")
    return items.rewrites


def group_terms(cells: tuple[tuple[str, str], ...], items: Items) -> Array:
    """(S, N, 2G) for each (family, group): 1 where the item is in it and right; then 1 where it is in it."""
    member = np.stack([items.groups[family] == name for family, name in cells], axis=-1).astype(np.float64)  # (N, G)
    inside = np.broadcast_to(member, (len(items.p), *member.shape))
    return np.concatenate([inside * items.hits[..., None], inside], axis=-1)


def _group_value(index: int, sums: Array) -> Array:
    half = sums.shape[-1] // 2
    return divide(sums[..., index], sums[..., half + index], np.nan)


def _worst_value(chosen: tuple[int, ...], sums: Array) -> Array:
    """Lowest accuracy over the chosen groups; a group that a resample misses does not count."""
    right, count = np.split(sums, 2, axis=-1)
    return divide(right, count, np.inf)[..., list(chosen)].min(-1)


def group_metrics(cells: tuple[tuple[str, str], ...], judged: tuple[tuple[str, str], ...]) -> list[Metric]:
    """Accuracy inside each (family, group) of `cells`, named `family/group`; and `worst_group`, the lowest over `judged`, a part of them."""
    terms = partial(group_terms, cells)
    found = [Metric(f"{family}/{name}", True, terms, partial(_group_value, i)) for i, (family, name) in enumerate(cells)]
    if judged:
        found.insert(0, Metric("worst_group", True, terms, partial(_worst_value, tuple(map(cells.index, judged)))))
    return found


def _answers(positive: int | None) -> list[Metric]:
    names = ("precision", "recall", "f1")
    found = [Metric("accuracy", True, confusion, accuracy, proportion=True)]
    found += [Metric(f"{name}_macro", True, confusion, partial(_macro_value, i)) for i, name in enumerate(names)]
    if positive is not None:
        found += [Metric(f"{name}_positive", True, confusion, partial(_class_value, i, positive)) for i, name in enumerate(names)]
    return [*found, Metric("f1_weighted", True, confusion, f1_weighted)]


def _calibration(calibrated: bool) -> list[Metric]:
    suffix = "_calibrated" if calibrated else ""
    return [
        Metric(f"ece{suffix}", False, partial(ece_terms, calibrated=calibrated), ece),
        Metric(f"brier{suffix}", False, partial(brier_terms, calibrated=calibrated), mean, (0.0, 2.0)),
        Metric(f"nll{suffix}", False, partial(nll_terms, calibrated=calibrated), mean, (0.0, np.inf)),
    ]


def registry(positive: int | None = None) -> dict[str, Metric]:
    """Every metric by name; positive-class ones only where a positive class is named. Groups are added by `group_metrics`."""
    causal = [Metric(f"consistency_{key}", True, partial(consistency_terms, view), mean, proportion=True) for key, view in SWAPS.items()]
    causal += [Metric(f"held_out_consistency_{key}", True, partial(consistency_terms, view), mean, proportion=True) for key, view in HELD.items()]
    causal += [Metric(f"held_out_accuracy_{key}", True, partial(swapped_terms, view), mean, proportion=True) for key, view in HELD.items()]
    causal += [
        Metric("core_accuracy", True, partial(swapped_terms, "core"), mean, proportion=True),
        Metric("context_excess", False, context_terms, mean, (-1.0, 1.0)),
        Metric("pair_accuracy", True, pair_terms, mean, proportion=True),
        Metric("flip_rate", True, flip_terms, mean, proportion=True),
    ]
    every = [*_answers(positive), Metric("unparsed", False, unparsed_terms, mean, proportion=True), *_calibration(False), *_calibration(True), *causal]
    return {metric.name: metric for metric in every}


def applicable(metrics: Mapping[str, Metric], items: Items) -> list[Metric]:
    """The metrics that these items allow: views that exist, calibration that was fitted; pairs give pair metrics only."""
    pairs = {"pair_accuracy", "flip_rate"}
    if items.rewrites is not None:
        flips = bool((items.rewrites[0] != items.labels).any())
        return [metrics[name] for name in sorted(pairs) if flips or name != "flip_rate"]
    needs = {f"consistency_{key}": view for key, view in SWAPS.items()}
    needs |= {f"held_out_{what}_{key}": view for key, view in HELD.items() for what in ("consistency", "accuracy")}
    needs |= {"core_accuracy": "core", "context_excess": "context"}
    return [
        metric
        for name, metric in metrics.items()
        if name not in pairs
        and (name != "unparsed" or items.unparsed is not None)
        and (name not in needs or needs[name] in items.views)
        and (not name.endswith("_calibrated") or items.calibrated is not None)
    ]
