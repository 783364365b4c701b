"""The tests of the audit, each vectorised over cues, and what holds their errors together.

present / absent cue   Fisher's exact test: y of the m posts that hold the cue are of the class, n_c of all n are; under independence
                       y ~ Hypergeometric(n, n_c, m); two-sided p = 2 min(P(Y <= y), P(Y >= y))
number                 Mann-Whitney U of the class against the rest; AUC = U / (n_c (n - n_c)), .5 = no difference
effect                 log-odds with an informative prior (Monroe, Colaresi and Quinn 2008, here on posts that hold the cue):
                       d = log((y + a) / (n_c + a_0 - y - a)) - the same of the other classes, a = 1/2 + a_0 m / n, z = d / sqrt(sum of 1 / counts)

With two classes one test tells all; with C > 2 each class is tested against the rest and p is multiplied by C. Over the W cues of an audit
Bonferroni takes W p (family-wise error), Benjamini-Hochberg min over ranks j >= i of W p_(j) / j (false discovery rate).
p is kept as log10, for 404 of 404 would underflow.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PRIOR = 10.0
"""a_0: pseudo-posts of the prior."""
DULL = 1.0
"""A cue whose normal |z| is below this has its p from the normal approximation: it cannot pass any bound, and exact tails are slow."""


@dataclasses.dataclass(frozen=True)
class Tested:
    """The strongest class of each of W cues."""

    label: NDArray[np.int64]
    """(W,) class the cue speaks for"""
    effect: Floats
    """(W,) log-odds of the class with the cue against without (presence), or AUC (number)"""
    z: Floats
    """(W,) effect over its standard error"""
    log10_p: Floats
    """(W,)"""


def presence(counts: Floats, sizes: Floats) -> Tested:
    """Fisher's exact test per cue.

    Args:
        counts: (C, W) posts of each class that hold each cue.
        sizes: (C,) posts of each class, or (C, W) where each cue is looked for among posts of its own.
    """
    sizes = np.broadcast_to(sizes.reshape(len(sizes), -1), counts.shape)
    held, total = counts.sum(axis=0), sizes.sum(axis=0)
    expected = held * sizes / total
    spread = np.sqrt(np.maximum(expected * (1 - sizes / total) * (total - held) / np.maximum(total - 1, 1), 1e-12))
    rough = (counts - expected) / spread  # (C, W)
    best = np.argmax(rough, axis=0)
    one = len(sizes) == 2
    tails = np.stack([_tails(counts[c], total, sizes[c], held, rough[c]) for c in ([0] if one else range(len(sizes)))])
    log_p = tails.min(axis=0) + (0.0 if one else np.log(len(sizes)))
    at = np.arange(counts.shape[1])
    effect, z = log_odds(counts[best, at], held, sizes[best, at], total)
    return Tested(best, effect, z, np.minimum(log_p, 0.0) / np.log(10.0))


def _tails(inside: Floats, total: Floats, size: Floats, held: Floats, rough: Floats) -> Floats:
    """Natural log of the two-sided p of one class: (W,)."""
    from scipy.stats import hypergeom, norm

    log_p = np.minimum(norm.logsf(np.abs(rough)) + np.log(2.0), 0.0)
    many, few = rough >= DULL, rough <= -DULL
    log_p[many] = hypergeom.logsf(inside[many] - 1, total[many], size[many], held[many]) + np.log(2.0)
    log_p[few] = hypergeom.logcdf(inside[few], total[few], size[few], held[few]) + np.log(2.0)
    return np.minimum(log_p, 0.0)


def log_odds(inside: Floats, held: Floats, size: Floats, total: Floats) -> tuple[Floats, Floats]:
    """Informative-prior log-odds of the class and its z.

    Args:
        inside: (W,) posts of the class that hold the cue.
        held: (W,) posts that hold it.
        size: (W,) posts of the class.
        total: (W,) posts.
    """
    prior = 0.5 + PRIOR * held / total
    without = PRIOR + 1 - prior
    cells = (inside + prior, size - inside + without, held - inside + prior, total - size - (held - inside) + without)
    effect = np.log(cells[0]) - np.log(cells[1]) - np.log(cells[2]) + np.log(cells[3])
    return effect, effect / np.sqrt(sum(1 / cell for cell in cells))


def rank(values: Floats, labels: NDArray[np.int64], classes: int) -> Tested:
    """Mann-Whitney U per number, normal approximation with ties.

    Args:
        values: (n, W) numbers.
        labels: (n,) class numbers.
        classes: C.
    """
    from scipy.stats import norm, rankdata, tiecorrect

    ranks = rankdata(values, axis=0)
    total = len(values)
    ties = np.array([tiecorrect(ranks[:, w]) for w in range(values.shape[1])])
    aucs, scores = [], []
    for c in range(classes):
        size = int((labels == c).sum())
        u = ranks[labels == c].sum(axis=0) - size * (size + 1) / 2
        pairs = max(1.0, float(size * (total - size)))
        spread = np.sqrt(np.maximum(ties, 1e-12) * pairs * (total + 1) / 12)
        aucs.append(u / pairs)
        scores.append((u - pairs / 2) / spread)
    auc, z = np.stack(aucs), np.stack(scores)
    best = np.argmax(np.abs(z), axis=0) if classes > 2 else np.argmax(z, axis=0)
    at = np.arange(values.shape[1])
    log_p = norm.logsf(np.abs(z).max(axis=0)) + np.log(2.0) + (np.log(classes) if classes > 2 else 0.0)
    return Tested(best, auc[best, at], z[best, at], np.minimum(log_p, 0.0) / np.log(10.0))


def adjusted(log10_p: Floats) -> tuple[Floats, Floats]:
    """log10 of the Bonferroni- and of the Benjamini-Hochberg-adjusted p of W cues, each (W,)."""
    made = len(log10_p)
    if not made:
        return log10_p, log10_p
    order = np.argsort(log10_p, kind="stable")
    steps = log10_p[order] + np.log10(made) - np.log10(np.arange(1, made + 1))
    rates = np.empty(made)
    rates[order] = np.minimum.accumulate(steps[::-1])[::-1]
    return np.minimum(log10_p + np.log10(made), 0.0), np.minimum(rates, 0.0)
