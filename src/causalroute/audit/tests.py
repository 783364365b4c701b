"""The two tests of the audit, each vectorised over cues.

present / absent cue   Fisher's exact test: y of the m posts that hold the cue are of the class, n_c of all n are; under independence
                       y ~ Hypergeometric(n, n_c, m); two-sided p = 2 min(P(Y <= y), P(Y >= y))
number                 Mann-Whitney U of the class against the rest; AUC = U / (n_c (n - n_c)), .5 = no difference

Both work for one class against the rest; with two classes one test tells all, with more each class is a test of its own. p is kept as log10, for
404 of 404 would underflow.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Tested:
    """The strongest class of each of W cues."""

    label: NDArray[np.int64]
    """(W,) class the cue speaks for"""
    effect: Floats
    """(W,) log-odds of the class with the cue against without (presence), or AUC (number)"""
    log10_p: Floats
    """(W,)"""
    tests: int
    """number of tests made"""


def presence(counts: Floats, sizes: Floats) -> Tested:
    """Fisher's exact test per cue.

    Args:
        counts: (C, W) posts of each class that hold each cue.
        sizes: (C,) posts of each class.
    """
    from scipy.stats import hypergeom

    held, total = counts.sum(axis=0), sizes.sum()
    upper = np.stack([hypergeom.logsf(counts[c] - 1, total, sizes[c], held) for c in range(len(sizes))])  # (C, W): overuse by class c
    lower = np.stack([hypergeom.logcdf(counts[c], total, sizes[c], held) for c in range(len(sizes))])
    best = np.argmin(upper, axis=0)
    log_p = np.minimum(upper.min(axis=0), lower.min(axis=0)) + np.log(2.0)
    at = np.arange(counts.shape[1])
    inside, outside = counts[best, at], sizes[best] - counts[best, at]
    rest_in, rest_out = held - inside, total - sizes[best] - (held - inside)
    effect = np.log((inside + 0.5) / (rest_in + 0.5)) - np.log((outside + 0.5) / (rest_out + 0.5))
    return Tested(best, effect, np.minimum(log_p, 0.0) / np.log(10.0), _tests(len(sizes), counts.shape[1]))


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
    aucs, log_ps = [], []
    for c in range(classes):
        size = int((labels == c).sum())
        u = ranks[labels == c].sum(axis=0) - size * (size + 1) / 2
        pairs = max(1.0, float(size * (total - size)))
        spread = np.sqrt(np.maximum(ties, 1e-12) * pairs * (total + 1) / 12)
        aucs.append(u / pairs)
        log_ps.append(norm.logsf(np.abs(u - pairs / 2) / spread) + np.log(2.0))
    auc, log_p = np.stack(aucs), np.stack(log_ps)
    best = np.argmax(np.abs(auc - 0.5), axis=0) if classes > 2 else np.argmax(auc, axis=0)
    at = np.arange(values.shape[1])
    return Tested(best, auc[best, at], np.minimum(log_p.min(axis=0), 0.0) / np.log(10.0), _tests(classes, values.shape[1]))


def _tests(classes: int, cues: int) -> int:
    return cues * (1 if classes == 2 else classes)
