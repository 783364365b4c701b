"""Error bars and tests over seeds and items jointly.

Posts and seeds are crossed: every seed answers the same posts. With m_s the metric of seed s, m its mean over S seeds, and b_rs the
metric of seed s on bootstrap resample r of the posts,

    var(m) = V_seed / S + V_item - V_both / (S - 1)
    V_seed = var_s(m_s), ddof 1          V_item = var_r(mean_s b_rs)          V_both = mean_s(var_r b_rs) - V_item

The last term takes out the post-by-seed noise that both others contain (Owen 2007, the pigeonhole bootstrap, corrected). Seeds enter by their
exact variance, because five seeds drawn with replacement understate it by 4/5. The interval is m +- t_nu sqrt(var m) with
Satterthwaite's nu = var(m)^2 / ((V_seed / S)^2 / (S - 1)). A method without randomness has V_seed = 0 and keeps the error of the posts.

The same formula on paired differences (same posts, same seeds, same resamples) is the paired bootstrap.
Letters: S seeds, N items, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from causalroute.errors import UserError
from causalroute.evaluation.metrics import Array, Items, Metric, Terms
from causalroute.rng import generator

Weights = NDArray[np.float32]
BLOCK = 4_000_000
"""Item weights drawn at once."""
KEEP = 10_000_000
"""Item weights of one split that are kept for the next method (40 MB); larger ones are drawn again."""
MIN_RESAMPLES = 20


@dataclass(frozen=True)
class Sample:
    """A metric per seed (S,), and per resample and seed (R, S)."""

    point: Array
    resampled: Array


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds with its interval, standard error and degrees of freedom (inf: normal)."""

    mean: float
    low: float
    high: float
    error: float
    freedom: float


def weights(items: int, resamples: int, seed: int, *names: object) -> Iterator[Weights]:
    """Blocks (r, N) of how often each item is drawn, `resamples` rows in all; equal names give equal draws."""
    if resamples < MIN_RESAMPLES:
        fix = f"use at least {MIN_RESAMPLES}; 2000 is the default"
        raise UserError(f"bootstrap: {resamples} resamples are too few", where="params.yaml: evaluate.bootstrap", fix=fix)
    if items * resamples <= KEEP:
        return iter(_kept(items, resamples, seed, names))
    return _draw(items, resamples, seed, names)


@lru_cache(maxsize=6)
def _kept(items: int, resamples: int, seed: int, names: tuple[object, ...]) -> tuple[Weights, ...]:
    """The draws of a small split, kept for the next method."""
    return tuple(_draw(items, resamples, seed, names))


def _draw(items: int, resamples: int, seed: int, names: tuple[object, ...]) -> Iterator[Weights]:
    rng = generator(seed, "bootstrap", items, *names)
    step = max(1, BLOCK // items)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(items, size=(rows, items)) + np.arange(rows)[:, None] * items
        yield np.bincount(drawn.ravel(), minlength=rows * items).reshape(rows, items).astype(np.float32)


def resample(items: Items, metrics: Sequence[Metric], blocks: Callable[[], Iterator[Weights]]) -> dict[str, Sample]:
    """Every metric on the items and on each resample; metrics that share their terms share the matrix product."""
    by_terms: dict[Terms, list[Metric]] = {}
    for metric in metrics:
        by_terms.setdefault(metric.terms, []).append(metric)
    terms = {make: make(items) for make in by_terms}
    stored = {make: _compact(value) for make, value in terms.items()}
    found: dict[str, list[Array]] = {metric.name: [metric.value(terms[metric.terms].sum(1))] for metric in metrics}  # (S,)
    for block in blocks():
        for make, sharing in by_terms.items():
            sums = _weighted(block, stored[make])
            for metric in sharing:
                found[metric.name].append(metric.value(sums))  # (r, S)
    return {name: Sample(values[0], np.concatenate(values[1:])) for name, values in found.items()}


def _compact(terms: Array) -> NDArray[np.floating]:
    """Single precision where that is exact (counts), so that results do not hang on the order of the sums."""
    return terms.astype(np.float32) if (terms == np.rint(terms)).all() else terms


def _weighted(block: Weights, terms: NDArray[np.floating]) -> Array:
    """(r, N) x (S, N, Q) -> (r, S, Q)."""
    seeds, items, size = terms.shape
    flat = terms.transpose(1, 0, 2).reshape(items, seeds * size)
    return (block.astype(terms.dtype) @ flat).reshape(len(block), seeds, size).astype(np.float64)


def t_interval(values: Array, confidence: float) -> tuple[float, float]:
    """Student interval of the mean over seeds (ddof 1): what other seeds would give on these very items. One seed: NaN."""
    if len(values) < 2:
        return math.nan, math.nan
    half = quantile((1 + confidence) / 2, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    middle = float(values.mean())
    return middle - half, middle + half


def standard_error(sample: Sample) -> tuple[float, float]:
    """Standard error of the mean over seeds and items, and Satterthwaite's degrees of freedom."""
    seeds = len(sample.point)
    resampled = sample.resampled[np.isfinite(sample.resampled).all(axis=1)]  # a resample may miss a small group altogether
    by_item = float(resampled.mean(axis=1).var(ddof=1)) if len(resampled) > 1 else 0.0
    if seeds == 1:
        return math.sqrt(by_item), math.inf
    by_seed = float(sample.point.var(ddof=1)) / seeds
    both = float(resampled.var(axis=0, ddof=1).mean()) - by_item if len(resampled) > 1 else 0.0
    variance = max(by_seed + by_item - max(both, 0.0) / (seeds - 1), by_seed, by_item)
    freedom = (seeds - 1) * (variance / by_seed) ** 2 if by_seed > 1e-18 else math.inf
    return math.sqrt(variance) if variance > 1e-18 else 0.0, freedom


def estimate(sample: Sample, confidence: float, bounds: tuple[float, float] = (-math.inf, math.inf), trials: int = 0) -> Estimate:
    """The interval over seeds and items, cut at `bounds`.

    `trials` > 0 says the metric is a proportion of so many items: without any variance (every answer right, or none) the interval is
    Clopper and Pearson's instead of a point.
    """
    middle = float(sample.point.mean())
    error, freedom = standard_error(sample)
    half = quantile((1 + confidence) / 2, freedom) * error
    low, high = max(middle - half, bounds[0]), min(middle + half, bounds[1])
    if error == 0.0 and trials and middle in (0.0, 1.0):
        slack = ((1 - confidence) / 2) ** (1 / trials)
        low, high = (slack, 1.0) if middle else (0.0, 1 - slack)
    return Estimate(middle, low, high, error, freedom)


def quantile(share: float, freedom: float) -> float:
    """Quantile of Student's distribution; the normal one for infinite freedom."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(share) if math.isinf(freedom) else stdtrit(freedom, share))


@dataclass(frozen=True)
class Difference:
    """Method minus reference: mean, interval, two-sided p, and the smallest true difference found with 80 % power."""

    mean: float
    low: float
    high: float
    p: float
    detectable: float


def difference(sample: Sample, reference: Sample, confidence: float) -> Difference:
    """Paired comparison of two methods on the same items, seeds and resamples.

    Raises:
        ValueError: the samples do not pair.
    """
    if sample.resampled.shape != reference.resampled.shape:
        raise ValueError(f"samples do not pair: {sample.resampled.shape} against {reference.resampled.shape}")
    paired = Sample(sample.point - reference.point, sample.resampled - reference.resampled)
    found = estimate(paired, confidence)
    detectable = minimal_detectable(found.error, found.freedom, 1 - confidence)
    return Difference(found.mean, found.low, found.high, _p_value(found, len(paired.resampled)), detectable)


def ratio(above: Sample, below: Sample) -> Sample:
    """The ratio of two means over seeds and items, made linear around its value (delta method), so that `estimate` gives its interval.

    The linear form g + (above - g below) / mean(below), with g = mean(above) / mean(below), has the ratio's mean and first-order error. It holds
    where the denominator is well away from 0.
    """
    middle = float(below.point.mean())
    share = float(above.point.mean()) / middle
    return Sample(share + (above.point - share * below.point) / middle, share + (above.resampled - share * below.resampled) / middle)


def _p_value(found: Estimate, resamples: int) -> float:
    from scipy.special import ndtr, stdtr

    if found.error == 0.0:
        return 1.0 if found.mean == 0.0 else 1 / (resamples + 1)
    z = abs(found.mean) / found.error
    return float(2 * (ndtr(-z) if math.isinf(found.freedom) else stdtr(found.freedom, -z)))


def minimal_detectable(error: float, freedom: float, alpha: float, power: float = 0.8) -> float:
    """(t_{1 - alpha/2} + t_{power}) standard errors: smaller true differences are missed more often than 1 - power."""
    return (quantile(1 - alpha / 2, freedom) + quantile(power, freedom)) * error


def mcnemar(hits: Array, reference: Array) -> tuple[int, int, float]:
    """Items that only the method, only the reference gets right (both (N,) of 0/1), and the exact binomial p (McNemar 1947)."""
    from scipy.special import bdtr

    ours, theirs = int(((hits == 1) & (reference == 0)).sum()), int(((hits == 0) & (reference == 1)).sum())
    return ours, theirs, min(1.0, 2 * float(bdtr(min(ours, theirs), ours + theirs, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjustment: adjusted p in the given order."""
    order = np.argsort(np.asarray(p_values), kind="stable")
    adjusted = np.empty(len(order))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = running
    return [float(value) for value in adjusted]
