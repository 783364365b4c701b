"""Simulated studies whose truth is known: what several seeds of a method answer to the same posts.

    right_si = [ mu + a_s + d_i + e_si > 0 ],    a ~ N(0, spread),  d ~ N(0, 1 - noise),  e ~ N(0, noise)

Every seed answers the same posts, some of which are hard for all (d); seeds differ as a whole (a) and by post (e). The truth is the expectation
over seeds *and* posts. `spread` is given in points of accuracy.

Letters: S seeds, N items, C classes, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import expit, ndtr, ndtri

from causalroute.evaluation.metrics import BINS, Array, Items, Metric, group_metrics, registry

Rng = np.random.Generator
TRUTH = 200_000
"""draws behind a truth that has no closed form"""


@dataclass(frozen=True)
class Study:
    """How one method's answers are drawn, the metric that is looked at, and its true value."""

    metric: Metric
    truth: float
    draw: Callable[[Rng], Items]
    others: Sequence[Metric] = ()


def _mean_sd(accuracy: Array | float, spread: float) -> tuple[Array, Array]:
    """mu and the seeds' standard deviation that give this accuracy and roughly this spread of it."""
    middle = ndtri(accuracy)
    sd = spread / (np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi))
    return middle * np.sqrt(1 + sd**2), sd


def _noise(rng: Rng, seeds: int, items: int, noise: float) -> Array:
    return np.sqrt(1 - noise) * rng.normal(size=(1, items)) + np.sqrt(noise) * rng.normal(size=(seeds, items))


def _answers(right: Array, labels: Array) -> Array:
    """(S, N, 2) one-hot answers."""
    return np.eye(2)[np.where(right, labels, 1 - labels)]


def accuracy(value: float, items: int, seeds: int, spread: float, noise: float) -> Study:
    """Plain accuracy."""
    mu, sd = _mean_sd(value, spread)

    def draw(rng: Rng) -> Items:
        labels = rng.integers(2, size=items)
        right = mu + sd * rng.normal(size=(seeds, 1)) + _noise(rng, seeds, items, noise) > 0
        return Items(labels, _answers(right, labels))

    return Study(registry()["accuracy"], value, draw)


def methods(values: Sequence[float], items: int, seeds: int, spread: float, noise: float, shared: float = 0.8) -> Callable[[Rng], list[Items]]:
    """Methods of given accuracies on the same items, with errors that go together: `shared` is the part of a post's difficulty common to all."""
    centres = [_mean_sd(value, spread) for value in values]

    def draw(rng: Rng) -> list[Items]:
        labels, common = rng.integers(2, size=items), np.sqrt(shared) * rng.normal(size=(1, items))
        found = []
        for mu, sd in centres:
            latent = mu + sd * rng.normal(size=(seeds, 1)) + common + np.sqrt(1 - shared) * _noise(rng, seeds, items, noise)
            found.append(Items(labels, _answers(latent > 0, labels)))
        return found

    return draw


def f1(name: str, share: float, recall: float, false_alarms: float, items: int, seeds: int, spread: float, noise: float = 0.1) -> Study:
    """F1 where the positive class has this share of the items; a recall and a rate of false alarms that vary over seeds apart."""
    mu, sd = _mean_sd(np.array([1 - false_alarms, recall]), spread)
    right = ndtr(mu + sd * np.random.default_rng(0).normal(size=(TRUTH, 2)))  # per seed and class
    hits, misses, alarms = share * right[:, 1], share * (1 - right[:, 1]), (1 - share) * (1 - right[:, 0])
    quiet = (1 - share) * right[:, 0]
    positive, negative = 2 * hits / (2 * hits + misses + alarms), 2 * quiet / (2 * quiet + misses + alarms)
    truth = float((positive if name == "f1_positive" else (positive + negative) / 2).mean())

    def draw(rng: Rng) -> Items:
        labels = (rng.random(items) < share).astype(np.int64)
        latent = mu[labels] + (sd * rng.normal(size=(seeds, 2)))[:, labels] + _noise(rng, seeds, items, noise)
        return Items(labels, _answers(latent > 0, labels))

    return Study(registry(positive=1)[name], truth, draw)


def worst_group(values: Sequence[float], shares: Sequence[float], items: int, seeds: int, spread: float, noise: float = 0.1) -> Study:
    """The lowest accuracy of G groups; seeds differ as a whole and by group."""
    mu, sd = _mean_sd(np.array(values), spread)
    rng = np.random.default_rng(0)
    shift = sd * (rng.normal(size=(TRUTH, 1)) + rng.normal(size=(TRUTH, len(values)))) / np.sqrt(2)
    cells = tuple(("group", str(g)) for g in range(len(values)))
    worst, *others = group_metrics(cells, cells)

    def draw(rng: Rng) -> Items:
        group = rng.choice(len(values), size=items, p=shares)
        offset = sd * (rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, len(values)))) / np.sqrt(2)
        labels = np.zeros(items, dtype=np.int64)
        right = (mu + offset)[:, group] + _noise(rng, seeds, items, noise) > 0
        return Items(labels, _answers(right, labels), groups={"group": group.astype(np.str_)})

    return Study(worst, float(ndtr(mu + shift).min(1).mean()), draw, others)


def probabilities(name: str, factor: float, items: int, seeds: int, spread: float = 0.1, width: float = 2.5) -> Study:
    """ECE, NLL or Brier score of a model whose log-odds are the true ones (normal, `width`) times a factor: 1 is calibrated, above is overconfident."""

    def draw(rng: Rng) -> Items:
        true = rng.normal(0, width, size=items)
        scale = factor * np.exp(spread * rng.normal(size=(seeds, 1)))
        p = expit(true * scale)
        return Items((rng.random(items) < expit(true)).astype(np.int64), np.stack([1 - p, p], axis=-1))

    return Study(registry()[name], _expected(name, factor, spread, width), draw)


@cache
def _expected(name: str, factor: float, spread: float, width: float) -> float:
    """Mean over seeds of `_population`."""
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, width, size=TRUTH)
    return float(np.mean([_population(name, log_odds, scale) for scale in factor * np.exp(spread * rng.normal(size=100))]))


def _population(name: str, log_odds: Array, scale: float) -> float:
    """The metric of one seed on endlessly many posts."""
    p, true = expit(log_odds * scale), expit(log_odds)
    if name == "nll":  # -log p and -log(1 - p) from the log-odds: p itself rounds to 1
        return float((true * np.logaddexp(0, -log_odds * scale) + (1 - true) * np.logaddexp(0, log_odds * scale)).mean())
    if name == "brier":
        return float(2 * (true * (1 - p) ** 2 + (1 - true) * p**2).mean())
    confidence, right = np.maximum(p, 1 - p), expit(np.abs(log_odds))
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return float(np.abs(np.bincount(bins, right - confidence, BINS)).sum() / len(p))


def agreement(value: float, items: int, seeds: int, spread: float, noise: float) -> Study:
    """How often two seeds' largest gates agree, where `value` of the posts get the first gate."""
    mu, sd = _mean_sd(value, spread)
    rng = np.random.default_rng(0)
    pairs, difficulty = mu + sd * rng.normal(size=(5000, 2, 1)), np.sqrt(1 - noise) * ndtri((np.arange(400) + 0.5) / 400)
    first, second = np.moveaxis(ndtr((pairs + difficulty) / np.sqrt(noise)), 1, 0)

    def draw(rng: Rng) -> Items:
        chosen = mu + sd * rng.normal(size=(seeds, 1)) + _noise(rng, seeds, items, noise) > 0
        labels = np.zeros(items, dtype=np.int64)
        return Items(labels, _answers(chosen, labels), weights={"gates": np.eye(4)[chosen.astype(np.int64)]})

    return Study(registry()["gate_agreement"], float((first * second + (1 - first) * (1 - second)).mean()), draw)
