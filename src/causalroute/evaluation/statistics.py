"""Error bars and tests over seeds and items jointly.

Posts and seeds are crossed: every seed answers the same posts. With m_s the metric of seed s, m its mean over S seeds, and b_rs the
metric of seed s on bootstrap resample r of the posts,

    var(m) = V_item + max(0, V_seed / S - V_both / (S - 1))
    V_seed = var_s(m_s), ddof 1          V_item = var_r(mean_s b_rs)          V_both = mean_s(var_r b_rs) - V_item

The last term takes out the post-by-seed noise that both others contain (Owen 2007, the pigeonhole bootstrap, corrected). Seeds enter by their
exact variance, because five seeds drawn with replacement understate it by 4/5. The error is that of Student's t with

    nu = (S - 1) var(m) / (V_seed / S)          infinite where the seeds vary no more than post-by-seed noise does

so 1 / nu lies between 0 (posts alone) and 1 / (S - 1) (seeds alone) by the seeds' share of the variance. Satterthwaite's nu has that share squared and is
too large where few seeds carry most of the variance: the share is itself estimated from them (coverage: `benchmarks.coverage`, docs/evaluation.md).
A method without randomness has V_seed = 0 and keeps the error of the posts.

A share p is bounded, and its error shrinks towards 0 and 1. Its interval is Wilson's with n = p (1 - p) / var(m) effective items and t for z. Differences
and other metrics have m +- t sqrt(var m). The same formula on paired differences (same posts, same seeds, same resamples) is the paired bootstrap.
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
    """A metric per seed (S,), and per resample and seed (R, S); of how many items it is a proportion, 0 where it is none."""

    point: Array
    resampled: Array
    trials: int = 0


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
    """Every metric on the items and on each resample; metrics that share their terms share their sums, and all share the matrix product."""
    terms = {metric.terms: metric.terms(items) for metric in metrics}
    sums = {make: value.sum(1) for make, value in terms.items()}
    trials = {metric.name: int(metric.trials(sums[metric.terms]).min()) for metric in metrics if metric.trials}
    found: dict[str, list[Array]] = {metric.name: [metric.value(sums[metric.terms])] for metric in metrics}  # (S,)
    parts = _joined(terms)
    for block in blocks():
        weighted = {make: value for part in parts for make, value in part.weighted(block).items()}
        for metric in metrics:
            found[metric.name].append(metric.value(weighted[metric.terms]))  # (r, S)
    return {name: Sample(values[0], np.concatenate(values[1:]), trials.get(name, 0)) for name, values in found.items()}


@dataclass(frozen=True)
class _Joined:
    """Terms of one precision side by side, (N, sum of S Q), and the (S, Q) of each."""

    columns: NDArray[np.floating]
    shapes: dict[Terms, tuple[int, int]]

    def weighted(self, block: Weights) -> dict[Terms, Array]:
        """(r, S, Q) sums of each for weights (r, N)."""
        product = (block.astype(self.columns.dtype, copy=False) @ self.columns).astype(np.float64)
        ends = np.cumsum([seeds * size for seeds, size in self.shapes.values()])
        return {make: part.reshape(len(block), *self.shapes[make]) for make, part in zip(self.shapes, np.split(product, ends[:-1], axis=1), strict=True)}


def _joined(terms: dict[Terms, Array]) -> list[_Joined]:
    """Single precision where that is exact (counts), so that results do not hang on the order of the sums; double for the others."""
    found = []
    for kind, whole in ((np.float32, True), (np.float64, False)):
        chosen = {make: value for make, value in terms.items() if bool((value == np.rint(value)).all()) == whole}
        flat = [value.transpose(1, 0, 2).reshape(value.shape[1], -1).astype(kind) for value in chosen.values()]
        if flat:
            found.append(_Joined(np.concatenate(flat, axis=1), {make: (value.shape[0], value.shape[2]) for make, value in chosen.items()}))
    return found


def t_interval(values: Array, confidence: float) -> tuple[float, float]:
    """Student interval of the mean over seeds (ddof 1): what other seeds would give on these very items. One seed: NaN."""
    if len(values) < 2:
        return math.nan, math.nan
    half = quantile((1 + confidence) / 2, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    middle = float(values.mean())
    return middle - half, middle + half


def standard_error(sample: Sample) -> tuple[float, float]:
    """Standard error of the mean over seeds and items, and its degrees of freedom."""
    seeds = len(sample.point)
    resampled = sample.resampled[np.isfinite(sample.resampled).all(axis=1)]  # a resample may miss a small group altogether
    by_item = float(resampled.mean(axis=1).var(ddof=1)) if len(resampled) > 1 else 0.0
    if seeds == 1:
        return math.sqrt(by_item), math.inf
    by_seed = float(sample.point.var(ddof=1)) / seeds
    both = float(resampled.var(axis=0, ddof=1).mean()) - by_item if len(resampled) > 1 else 0.0
    beyond = by_seed - max(both, 0.0) / (seeds - 1)
    variance = max(by_item + max(beyond, 0.0), by_seed)
    freedom = (seeds - 1) * variance / by_seed if beyond > 1e-18 else math.inf
    return math.sqrt(variance) if variance > 1e-18 else 0.0, freedom


def estimate(
    sample: Sample, confidence: float, bounds: tuple[float, float] = (-math.inf, math.inf), *, share: bool = False, bias: tuple[float, float] = (0.0, 0.0)
) -> Estimate:
    """The interval over seeds and items, cut at `bounds`.

    Args:
        sample: the metric; where it is a proportion without any variance (every answer right, or none) its interval is Clopper and Pearson's.
        confidence: of the interval.
        bounds: smallest and largest value that the metric can have.
        share: its variance shrinks towards 0 and 1 as a proportion's does (`Metric.share`).
        bias: how many times the bias that the bootstrap shows is taken off the end towards the truth, and off the other end (`Metric.bias`).

    Returns:
        The mean over seeds, inside its interval.
    """
    middle = float(sample.point.mean())
    error, freedom = standard_error(sample)
    if error == 0.0 and sample.trials and middle in (0.0, 1.0):
        return Estimate(middle, *_exact(middle == 1.0, sample.trials, confidence), error, freedom)
    low, high = (_wilson if share else _symmetric)(middle, error, quantile((1 + confidence) / 2, freedom))
    shifts = _shifts(sample, middle, bias)
    low, high = min(low - shifts[0], middle), max(high - shifts[1], middle)
    return Estimate(middle, max(low, bounds[0]), min(high, bounds[1]), error, freedom)


def _symmetric(middle: float, error: float, t: float) -> tuple[float, float]:
    return middle - t * error, middle + t * error


def _wilson(middle: float, error: float, t: float) -> tuple[float, float]:
    """Where (p - middle)^2 = t^2 p (1 - p) / n, with the n that gives `error` at `middle` (Wilson 1927)."""
    if error == 0.0 or not 0 < middle < 1:
        return _symmetric(middle, error, t)
    extra = (t * error) ** 2 / (middle * (1 - middle))  # t^2 / n
    centre, half = (middle + extra / 2) / (1 + extra), math.sqrt(extra * middle * (1 - middle) + extra**2 / 4) / (1 + extra)
    return centre - half, centre + half


def _exact(all_right: bool, trials: int, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a proportion of 1 or 0."""
    slack = ((1 - confidence) / 2) ** (1 / trials)
    return (slack, 1.0) if all_right else (0.0, 1 - slack)


def _shifts(sample: Sample, middle: float, times: tuple[float, float]) -> tuple[float, float]:
    """What is taken off the lower and the upper end: a metric that resampling raises is itself too high, so its lower end moves by `times[0]`."""
    resampled = sample.resampled[np.isfinite(sample.resampled).all(axis=1)]
    if times == (0.0, 0.0) or not len(resampled):
        return 0.0, 0.0
    bias = float(resampled.mean()) - middle
    towards, away = times[0] * bias, times[1] * bias
    return (towards, away) if bias > 0 else (away, towards)


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
    certain = max(1 / (len(paired.resampled) + 1), 2 * 0.5**sample.trials if sample.trials else 0.0)
    return Difference(found.mean, found.low, found.high, _p_value(found, certain), detectable)


def ratio(above: Sample, below: Sample) -> Sample:
    """The ratio of two means over seeds and items, made linear around its value (delta method), so that `estimate` gives its interval.

    The linear form g + (above - g below) / mean(below), with g = mean(above) / mean(below), has the ratio's mean and first-order error. It holds
    where the denominator is well away from 0.
    """
    middle = float(below.point.mean())
    share = float(above.point.mean()) / middle
    return Sample(share + (above.point - share * below.point) / middle, share + (above.resampled - share * below.resampled) / middle)


def _p_value(found: Estimate, certain: float) -> float:
    """Two-sided p; `certain` where every item differs alike: no smaller than the resamples can show, nor than McNemar's p of so few items."""
    from scipy.special import ndtr, stdtr

    if found.error == 0.0:
        return 1.0 if found.mean == 0.0 else min(1.0, certain)
    z = abs(found.mean) / found.error
    return float(2 * (ndtr(-z) if math.isinf(found.freedom) else stdtr(found.freedom, -z)))


def minimal_detectable(error: float, freedom: float, alpha: float, power: float = 0.8) -> float:
    """(t_{1 - alpha/2} + t_{power}) standard errors: smaller true differences are missed more often than 1 - power."""
    return (quantile(1 - alpha / 2, freedom) + quantile(power, freedom)) * error


def mcnemar(hits: Array, reference: Array) -> tuple[int, int, float]:
    """Items that only the method, only the reference gets right (both (N,) of 0/1), and the exact binomial p (McNemar 1947)."""
    from scipy.special import bdtr  # scipy.stats has the test by name and takes a second to import

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
