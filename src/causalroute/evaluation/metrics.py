"""Registry of metrics: answers, probabilities, counterfactual views, pairs, groups; those of effects and routers are in `mediation`.

Letters: S seeds, N items, C classes, G groups, Q terms of one metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from causalroute.evaluation import mediation
from causalroute.evaluation.metric import Array, Items, Metric, Terms, Value, count, divide, masked, mean, one_hot, unpaired, with_count

__all__ = ["BINS", "WORST", "Array", "Items", "Metric", "Terms", "Value", "applicable", "group_metrics", "registry"]

BINS = 15
"""Equal-width confidence bins of the expected calibration error (Guo et al. 2017)."""
WORST = "worst_group"
SWAPS = {"t": "swap_t", "v": "swap_v", "tv": "swap_tv"}
"""Suffix of a consistency metric -> the view it compares with the factual pair."""
HELD = {"t": "held_t", "v": "held_v", "tv": "held_tv"}
"""The same for the swaps of the editor that no method trains on."""
KINK = 1 / (np.sqrt(2) - 1)
"""What the bootstrap shows of the bias of a kink's worst case (all bins calibrated): noise s shifts E|s z| by s c, the bootstrap's noise of sqrt(2) s adds
(sqrt(2) - 1) s c."""


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


def _bases(sums: Array) -> tuple[Array, Array, Array]:
    """Of how many items precision, recall and F1 of each class are shares, (..., C)."""
    cells = _square(sums)
    actual, answered = cells.sum(-1), cells.sum(-2)
    return answered, actual, actual + answered - np.diagonal(cells, axis1=-2, axis2=-1)


def _total(sums: Array) -> Array:
    return sums.sum(-1)


def accuracy(sums: Array) -> Array:
    """Share of right answers."""
    return divide(np.trace(_square(sums), axis1=-2, axis2=-1), sums.sum(-1), np.nan)


def _class_value(which: int, positive: int, sums: Array) -> Array:
    return _per_class(sums)[which][..., positive]


def _class_trials(which: int, positive: int, sums: Array) -> Array:
    return _bases(sums)[which][..., positive]


def _macro_trials(which: int, sums: Array) -> Array:
    """The class with the fewest items says most about how sure a macro mean is."""
    found = _bases(sums)[which]
    return np.where(found > 0, found, np.inf).min(-1)


def _macro_value(which: int, sums: Array) -> Array:
    """Mean over the classes that occur as label or answer, as scikit-learn does."""
    cells = _square(sums)
    seen = (cells.sum(-1) + cells.sum(-2)) > 0
    return divide((_per_class(sums)[which] * seen).sum(-1), seen.sum(-1).astype(np.float64))


def f1_weighted(sums: Array) -> Array:
    """F1 averaged over classes by their number of items."""
    _, _, f1, actual = _per_class(sums)
    return divide((f1 * actual).sum(-1), actual.sum(-1))


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
    return with_count(-np.log(np.maximum(p, np.finfo(np.float32).tiny))[..., None])


def brier_terms(items: Items, calibrated: bool = False) -> Array:
    """(S, N, 2) squared distance between p and the label's indicator, summed over classes (Brier 1950, range 0 to 2), and a one."""
    p = _probabilities(items, calibrated)
    return with_count(((p - one_hot(items.labels, p.shape[-1])) ** 2).sum(-1, keepdims=True))


def ece_terms(items: Items, calibrated: bool = False) -> Array:
    """(S, N, BINS + 1) hit minus confidence in the item's bin, and a one."""
    p = _probabilities(items, calibrated)
    confidence = p.max(-1)
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return with_count(one_hot(bins, BINS) * (items.hits - confidence)[..., None])


def ece(sums: Array) -> Array:
    """Expected calibration error: sum over bins of |accuracy - confidence| times the bin's share (Guo et al. 2017, eq. 3)."""
    return divide(np.abs(sums[..., :-1]).sum(-1), sums[..., -1], np.nan)


def consistency_terms(view: str, items: Items) -> Array:
    """(S, N, 2) 1 where the answer is the same for `view` as for the factual pair."""
    other = items.views[view]
    present = np.isfinite(other).all(-1)
    return masked(np.nan_to_num(other).argmax(-1) == items.p.argmax(-1), present)


def swapped_terms(view: str, items: Items) -> Array:
    """(S, N, 2) 1 where the answer to a counterfactual post, or to its core, is right: the label is the original's."""
    other = items.views[view]
    return masked(np.nan_to_num(other).argmax(-1) == items.labels, np.isfinite(other).all(-1))


def unparsed_terms(items: Items) -> Array:
    """(S, N, 2) 1 where a reply names no class."""
    return with_count(np.asarray(items.unparsed, dtype=np.float64)[..., None])


def context_terms(items: Items) -> Array:
    """(S, N, 2) right from the context alone, minus right by always naming the train majority."""
    context = items.views["context"]
    excess = (np.nan_to_num(context).argmax(-1) == items.labels).astype(np.float64) - (items.labels == items.majority)
    return masked(excess, np.isfinite(context).all(-1))


def pair_terms(items: Items) -> Array:
    """(S, N, 2) 1 where original and rewrite are both right."""
    labels, p = _rewrites(items)
    return with_count((items.hits * (p.argmax(-1) == labels))[..., None])


def flip_terms(items: Items) -> Array:
    """(S, N, 2) among pairs whose label flips: 1 where the answer changes."""
    labels, p = _rewrites(items)
    flips = np.broadcast_to(labels != items.labels, items.hits.shape)
    return masked(p.argmax(-1) != items.p.argmax(-1), flips)


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
    return divide(sums[..., index], _group_trials(index, sums), np.nan)


def _group_trials(index: int, sums: Array) -> Array:
    return sums[..., sums.shape[-1] // 2 + index]


def _worst_value(chosen: tuple[int, ...], sums: Array) -> Array:
    """Lowest accuracy over the chosen groups; a group that a resample misses does not count."""
    right, inside = np.split(sums, 2, axis=-1)
    return divide(right, inside, np.inf)[..., list(chosen)].min(-1)


def group_metrics(cells: tuple[tuple[str, str], ...], judged: tuple[tuple[str, str], ...]) -> list[Metric]:
    """Accuracy inside each (family, group) of `cells`, named `family/group`; and `worst_group`, the lowest over `judged`, a part of them."""
    terms = partial(group_terms, cells)
    found = [Metric(f"{f}/{g}", True, terms, partial(_group_value, i), share=True, trials=partial(_group_trials, i)) for i, (f, g) in enumerate(cells)]
    if judged:
        worst = partial(_worst_value, tuple(map(cells.index, judged)))
        found.insert(0, Metric(WORST, True, terms, worst, share=True, bias=(1.0, 0.0)))
    return found


def _answers(positive: int | None) -> list[Metric]:
    names = ("precision", "recall", "f1")
    share = partial(Metric, higher_is_better=True, terms=confusion, share=True)
    found = [share("accuracy", value=accuracy, trials=_total)]
    found += [share(f"{name}_macro", value=partial(_macro_value, i), trials=partial(_macro_trials, i)) for i, name in enumerate(names)]
    if positive is not None:
        values = [(partial(_class_value, i, positive), partial(_class_trials, i, positive)) for i in range(3)]
        found += [share(f"{name}_positive", value=value, trials=trials) for name, (value, trials) in zip(names, values, strict=True)]
    return [*found, share("f1_weighted", value=f1_weighted, trials=_total)]


def _calibrated(items: Items) -> bool:
    return items.rewrites is None and items.calibrated is not None


def _calibration(calibrated: bool) -> list[Metric]:
    suffix = "_calibrated" if calibrated else ""
    applies = _calibrated if calibrated else unpaired
    return [
        Metric(f"ece{suffix}", False, partial(ece_terms, calibrated=calibrated), ece, bias=(KINK, 1.0), applies=applies),
        Metric(f"brier{suffix}", False, partial(brier_terms, calibrated=calibrated), mean, (0.0, 2.0), applies=applies),
        Metric(f"nll{suffix}", False, partial(nll_terms, calibrated=calibrated), mean, (0.0, np.inf), applies=applies),
    ]


def _has_view(view: str, items: Items) -> bool:
    return items.rewrites is None and view in items.views


def _is_paired(items: Items) -> bool:
    return items.rewrites is not None


def _is_flipped(items: Items) -> bool:
    return items.rewrites is not None and bool((items.rewrites[0] != items.labels).any())


def _counterfactual() -> list[Metric]:
    share = partial(Metric, higher_is_better=True, value=mean, share=True, trials=count)
    found = [share(f"consistency_{key}", terms=partial(consistency_terms, view), applies=partial(_has_view, view)) for key, view in SWAPS.items()]
    found += [share(f"held_out_consistency_{key}", terms=partial(consistency_terms, view), applies=partial(_has_view, view)) for key, view in HELD.items()]
    found += [share(f"held_out_accuracy_{key}", terms=partial(swapped_terms, view), applies=partial(_has_view, view)) for key, view in HELD.items()]
    return [
        *found,
        share("core_accuracy", terms=partial(swapped_terms, "core"), applies=partial(_has_view, "core")),
        Metric("context_excess", False, context_terms, mean, (-1.0, 1.0), applies=partial(_has_view, "context")),
        share("flip_rate", terms=flip_terms, applies=_is_flipped),
        share("pair_accuracy", terms=pair_terms, applies=_is_paired),
    ]


def _has_replies(items: Items) -> bool:
    return items.rewrites is None and items.unparsed is not None


def registry(positive: int | None = None) -> dict[str, Metric]:
    """Every metric by name; positive-class ones only where a positive class is named. Groups are added by `group_metrics`."""
    unparsed = Metric("unparsed", False, unparsed_terms, mean, share=True, trials=count, applies=_has_replies)
    every = [*_answers(positive), unparsed, *_calibration(False), *_calibration(True), *_counterfactual(), *mediation.metrics()]
    return {metric.name: metric for metric in every}


def applicable(metrics: Mapping[str, Metric], items: Items) -> list[Metric]:
    """The metrics that these items allow: views that exist, calibration that was fitted; pairs give pair metrics only."""
    return [metric for metric in metrics.values() if metric.applies(items)]
