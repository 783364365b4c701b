"""Metrics of how a method decides: effects of the contexts on its answer, and what its router does. They describe; neither direction is better.

Effects are measured on the answer itself, so that every method has them, ERM (before) like the debiased ones (after), in log-odds of the label:

    c(p)_y      = log p_y - log p_other                   two classes; log p_y with more
    swap_m      = c(p(t, v)) - c(p(t, v; context m of another post))           m in {t, v, tv}
    te          = c(p(t, v)) - c(prior)                   nde_tv = c(p(t_s, v_s)) - c(prior)                    tie = te - nde_tv

A method that ignores the contexts has swap_m = nde_tv = 0. What a method with mediation estimates of its training posts is apart from this (`collect.EFFECTS`).

Letters: S seeds, N items, C classes, E experts or gates.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from causalroute.evaluation.metric import Array, Items, Metric, count, masked, mean, one_hot, with_count

SURE = 1e-6
"""Probabilities are held this far from 0: one saturated answer would outweigh all others."""
SWAPS = {"t": "swap_t", "v": "swap_v", "tv": "swap_tv"}
KINDS = ("keep", "t", "v", "tv")
"""The gate's kinds: nothing, the text, the image, both are taken for a shortcut."""


def contrast(p: Array, labels: NDArray[np.int64]) -> Array:
    """Log-odds (two classes) or log-probability (more) of each item's label: p (..., N, C), labels (N,) -> (..., N)."""
    logs = np.log(np.maximum(p, SURE))
    found = logs - logs[..., ::-1] if p.shape[-1] == 2 else logs
    return found[..., np.arange(len(labels)), labels]


def swap_terms(view: str, items: Items) -> Array:
    """(S, N, 2) what the post's own context adds to the log-odds of the label, against that of another post."""
    other = items.views[view]
    return masked(contrast(items.p, items.labels) - contrast(np.nan_to_num(other), items.labels), np.isfinite(other).all(-1))


def _at_prior(items: Items) -> Array:
    if items.prior is None:
        raise ValueError("effects against no post at all need the class prior")
    return contrast(np.broadcast_to(items.prior, (len(items.labels), len(items.prior))), items.labels)


def total_terms(items: Items) -> Array:
    """(S, N, 2) total effect of the post on the log-odds of the label."""
    return with_count((contrast(items.p, items.labels) - _at_prior(items))[..., None])


def direct_terms(items: Items) -> Array:
    """(S, N, 2) direct effect of both contexts: the answer to them alone."""
    context = items.views["context"]
    return masked(contrast(np.nan_to_num(context), items.labels) - _at_prior(items), np.isfinite(context).all(-1))


def indirect_terms(items: Items) -> Array:
    """(S, N, 2) total effect less the direct one."""
    return swap_terms("context", items)


def _entropy(shares: Array) -> Array:
    """Entropy over the last axis as a share of its largest value: 0 one for all, 1 all alike."""
    return -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(-1) / np.log(shares.shape[-1])


def entropy_terms(kind: str, items: Items) -> Array:
    """(S, N, 2) entropy of the weights that one post gets."""
    return with_count(_entropy(items.weights[kind])[..., None])


def weight_terms(kind: str, items: Items) -> Array:
    """(S, N, E + 1) the weights, and a one."""
    return with_count(items.weights[kind])


def balance(sums: Array) -> Array:
    """Entropy of the mean load over experts: 1 where all get the same, 0 where one gets all."""
    return _entropy(sums[..., :-1] / sums[..., -1:])


def _share_value(index: int, sums: Array) -> Array:
    return sums[..., index] / sums[..., -1]


def agreement_terms(items: Items) -> Array:
    """(S, N, 2) share of seed pairs whose largest gate is the same, as one value per seed.

    A pair belongs to two seeds, so the means a_s of a seed's pairs vary half as much as they should for the error of their mean A over seeds.
    The jackknife's pseudo-values (2 (S - 1) a_s - S A) / (S - 2) have the same mean and the right spread.
    """
    gates = items.weights["gates"]
    seeds = len(gates)
    chosen = one_hot(gates.argmax(-1), gates.shape[-1])  # (S, N, E)
    same = ((chosen * chosen.sum(0)).sum(-1) - 1) / (seeds - 1)  # (S, N)
    if seeds > 2:
        same = (2 * (seeds - 1) * same - seeds * same.mean(0)) / (seeds - 2)
    return with_count(same[..., None])


def _sees(view: str, needs_prior: bool, items: Items) -> bool:
    return items.rewrites is None and (not view or view in items.views) and (not needs_prior or items.prior is not None)


def _routes(kind: str, seeds: int, items: Items) -> bool:
    found = items.weights.get(kind)
    return items.rewrites is None and found is not None and found.shape[-1] > 1 and len(found) >= seeds


def _effects() -> list[Metric]:
    effect = partial(Metric, higher_is_better=None, value=mean, bounds=(-np.inf, np.inf))
    found = [effect(f"effect_swap_{key}", terms=partial(swap_terms, view), applies=partial(_sees, view, False)) for key, view in SWAPS.items()]
    return [
        *found,
        effect("effect_te", terms=total_terms, applies=partial(_sees, "", True)),
        effect("effect_nde_tv", terms=direct_terms, applies=partial(_sees, "context", True)),
        effect("effect_tie", terms=indirect_terms, applies=partial(_sees, "context", False)),
    ]


def _router() -> list[Metric]:
    gates, weights = partial(_routes, "gates", 1), partial(weight_terms, "gates")
    shares = [Metric(f"gate_share_{kind}", None, weights, partial(_share_value, i), share=True, trials=count, applies=gates) for i, kind in enumerate(KINDS)]
    return [
        *shares,
        Metric("gate_entropy", None, partial(entropy_terms, "gates"), mean, applies=gates),
        Metric("gate_agreement", None, agreement_terms, mean, share=True, trials=count, applies=partial(_routes, "gates", 2)),
        Metric("expert_entropy", None, partial(entropy_terms, "experts"), mean, applies=partial(_routes, "experts", 1)),
        Metric("expert_balance", None, partial(weight_terms, "experts"), balance, applies=partial(_routes, "experts", 1)),
    ]


def metrics() -> list[Metric]:
    """Effects on the answer, and router statistics."""
    return [*_effects(), *_router()]
