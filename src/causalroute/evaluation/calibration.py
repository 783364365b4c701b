"""Temperature scaling (Guo et al. 2017): p_T is proportional to p^(1/T), T fitted on validation only, one T per method and seed."""

from __future__ import annotations

import numpy as np

from causalroute.evaluation.metrics import BINS, Array, Items

FLOOR = float(np.finfo(np.float32).tiny)
RANGE = (0.05, 20.0)
"""Temperatures searched; a fit at an end means that validation cannot tell."""


def soften(p: Array, temperature: Array | float) -> Array:
    """p^(1/T), normalised; `temperature` is a number or (S,) for p (S, N, C). Keeps the order of the classes."""
    t = np.asarray(temperature, dtype=np.float64).reshape(-1, *([1] * (p.ndim - 1))) if np.ndim(temperature) else temperature
    logits = np.log(np.maximum(p, FLOOR)) / t
    logits = logits - logits.max(-1, keepdims=True)
    scores = np.exp(logits)
    return scores / scores.sum(-1, keepdims=True)


def fit_temperature(p: Array, labels: np.ndarray) -> float:
    """The T in RANGE that minimises the negative log-likelihood of labels (N,) under p (N, C)."""
    from scipy.optimize import minimize_scalar

    logits = np.log(np.maximum(p, FLOOR))
    chosen = np.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]

    def nll(log_t: float) -> float:
        scaled = logits * np.exp(-log_t)
        top = scaled.max(-1)
        return float((top + np.log(np.exp(scaled - top[:, None]).sum(-1)) - chosen * np.exp(-log_t)).mean())

    found = minimize_scalar(nll, bounds=(float(np.log(RANGE[0])), float(np.log(RANGE[1]))), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(found.x))


def fit_temperatures(p: Array, labels: np.ndarray) -> Array:
    """(S,) one temperature per seed for p (S, N, C)."""
    return np.array([fit_temperature(seed, labels) for seed in p])


def reliability(p: Array, items: Items) -> tuple[Array, Array, Array]:
    """Items, mean confidence and accuracy per confidence bin, each (BINS,), pooled over seeds; NaN in empty bins."""
    confidence, hits = p.max(-1).ravel(), items.hits.ravel()
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    count = np.bincount(bins, minlength=BINS).astype(np.float64)
    safe = np.where(count == 0, np.nan, count)
    return count, np.bincount(bins, confidence, BINS) / safe, np.bincount(bins, hits, BINS) / safe
