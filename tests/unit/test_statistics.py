"""Intervals and tests against SciPy, closed forms and simulation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from causalroute.errors import UserError
from causalroute.evaluation import statistics
from causalroute.evaluation.metrics import Items, registry
from causalroute.evaluation.statistics import Sample, difference, estimate, holm, mcnemar, minimal_detectable, resample, standard_error, t_interval, weights


def sample(values: np.ndarray, resamples: int = 200, seed: int = 0) -> Sample:
    """The mean of per-item values (S, N) as a metric."""
    blocks = np.concatenate(list(weights(values.shape[1], resamples, seed)))
    return Sample(values.mean(1), blocks @ values.T / values.shape[1])


def crossed(rng: np.random.Generator, seeds: int, items: int, by_seed: float, by_item: float, rest: float) -> np.ndarray:
    """Values with a seed, an item and a residual part, (S, N), true mean 0."""
    parts = by_seed * rng.normal(size=(seeds, 1)), by_item * rng.normal(size=(1, items)), rest * rng.normal(size=(seeds, items))
    return parts[0] + parts[1] + parts[2]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9), st.sampled_from([0.8, 0.95, 0.99]))
def test_t_interval_equals_scipy(values: list[float], confidence: float) -> None:
    numbers = np.array(values)
    low, high = t_interval(numbers, confidence)
    if numbers.std(ddof=1) > 1e-9:
        expected = stats.t.interval(confidence, len(numbers) - 1, numbers.mean(), stats.sem(numbers))
        assert (low, high) == pytest.approx(expected)
    assert low <= numbers.mean() + 1e-12
    assert high >= numbers.mean() - 1e-12


def test_one_seed_has_no_interval_over_seeds_but_one_over_items() -> None:
    assert all(map(math.isnan, t_interval(np.array([0.5]), 0.95)))
    values = np.random.default_rng(0).random((1, 400))
    found = estimate(sample(values, 2000), 0.95)
    expected = stats.norm.interval(0.95, values.mean(), values.std() / 20)
    assert (found.low, found.high) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(("by_seed", "by_item", "rest", "most"), [(0.05, 1.0, 0.3, 0.97), (0.3, 1.0, 0.0, 0.97), (0.5, 0.2, 0.2, 0.98), (0.0, 0.0, 1.0, 0.99)])
def test_interval_covers_its_nominal_share(by_seed: float, by_item: float, rest: float, most: float) -> None:
    """95 % intervals of 5 crossed seeds cover the true mean in about 93-97 % of 600 studies (binomial error .9); more where seeds share nothing."""
    rng = np.random.default_rng(1)
    blocks = np.concatenate(list(weights(80, 150, 0)))
    inside = 0
    for _ in range(600):
        values = crossed(rng, 5, 80, by_seed, by_item, rest)
        found = estimate(Sample(values.mean(1), blocks @ values.T / 80), 0.95)
        inside += found.low <= 0 <= found.high
    assert 0.93 <= inside / 600 <= most


def test_paired_test_keeps_its_level_and_finds_real_differences() -> None:
    """Two methods that share items and seeds: p < .05 in 3-7 % of 600 studies without a difference, nearly always with a large one."""
    rng = np.random.default_rng(2)
    blocks = np.concatenate(list(weights(80, 150, 0)))
    rejected = {0.0: 0, 0.6: 0}
    for shift in rejected:
        for _ in range(600 if shift == 0 else 50):
            shared = crossed(rng, 5, 80, 0.2, 2.0, 0.0)
            pair = [shared + crossed(rng, 5, 80, 0.1, 0.5, 0.3) + s for s in (shift, 0.0)]
            ours, theirs = (Sample(values.mean(1), blocks @ values.T / 80) for values in pair)
            rejected[shift] += difference(ours, theirs, 0.95).p < 0.05
    assert 0.03 <= rejected[0.0] / 600 <= 0.07
    assert rejected[0.6] / 50 > 0.9


def test_t_interval_over_seeds_covers_its_nominal_share() -> None:
    rng = np.random.default_rng(3)
    found = [t_interval(rng.normal(size=5), 0.95) for _ in range(2000)]
    assert 0.93 <= np.mean([low <= 0 <= high for low, high in found]) <= 0.97


def test_deterministic_method_keeps_the_error_of_the_items() -> None:
    hits = (np.random.default_rng(0).random(500) < 0.6).astype(float)
    found = estimate(sample(np.tile(hits, (5, 1)), 2000), 0.95)
    assert found.freedom == math.inf
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(0.24 / 500), rel=0.1)


def test_degrees_of_freedom_lie_between_seeds_and_posts() -> None:
    """1 / nu is the seeds' share of the variance over S - 1; posts alone where the seeds vary no more than post-by-seed noise does."""
    rng = np.random.default_rng(0)
    seeds_alone = Sample(rng.normal(size=5), np.zeros((40, 5)))
    seeds_alone = Sample(seeds_alone.point, np.tile(seeds_alone.point, (40, 1)))
    assert standard_error(seeds_alone) == pytest.approx((seeds_alone.point.std(ddof=1) / math.sqrt(5), 4))
    posts = rng.normal(size=(40, 1)) * seeds_alone.point.std(ddof=1) / math.sqrt(5)
    half = Sample(seeds_alone.point, seeds_alone.point + posts)
    share = seeds_alone.point.var(ddof=1) / 5 / standard_error(half)[0] ** 2
    assert standard_error(half)[1] == pytest.approx(4 / share)
    assert 4 < standard_error(half)[1] < math.inf
    noise = sample(rng.normal(size=(5, 200)))
    noise = Sample(np.full(5, noise.point.mean()) + 1e-3 * rng.normal(size=5), noise.resampled)
    assert standard_error(noise)[1] == math.inf


def test_kinked_metrics_reach_towards_the_truth() -> None:
    """Resampling raises the metric by .02: twice that is taken off the lower end, once off the upper one; mirrored where it lowers it."""
    noise = 0.05 * np.random.default_rng(0).normal(size=(60, 1))
    point, noise = np.full(2, 0.5), np.tile(noise - noise.mean(), (1, 2))
    for sign in (1, -1):
        found, plain = (estimate(Sample(point, point + noise + sign * 0.02), 0.95, bias=bias) for bias in ((2.0, 1.0), (0.0, 0.0)))
        moved = (found.low - plain.low, found.high - plain.high)
        assert moved == pytest.approx((-0.04, -0.02) if sign > 0 else (0.02, 0.04))


def test_no_variance_at_all_gives_clopper_and_pearson() -> None:
    for value in (0.0, 1.0):
        found = estimate(dataclasses.replace(sample(np.full((5, 50), value)), trials=50), 0.95, (0.0, 1.0), share=True)
        exact = stats.binomtest(round(50 * value), 50).proportion_ci(0.95, method="exact")
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_intervals_stay_inside_their_bounds() -> None:
    found = estimate(sample(np.tile(np.eye(40)[0], (5, 1))), 0.95, (0.0, 1.0))
    assert found.low == 0.0
    assert found.high < 0.1


def test_same_method_twice_differs_by_nothing() -> None:
    ours = sample(np.random.default_rng(0).random((5, 60)))
    found = difference(ours, ours, 0.95)
    assert (found.mean, found.low, found.high, found.p, found.detectable) == (0, 0, 0, 1, 0)


def test_constant_difference_is_significant_and_symmetric() -> None:
    values = np.random.default_rng(0).random((3, 60))
    ours, theirs = sample(values + 0.5), sample(values)
    there, back = difference(ours, theirs, 0.95), difference(theirs, ours, 0.95)
    assert there.p == back.p < 0.01
    assert there.mean == pytest.approx(-back.mean)


def test_samples_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="do not pair"):
        difference(sample(np.ones((3, 20))), sample(np.ones((2, 20))), 0.95)


@settings(max_examples=20, deadline=None)
@given(items=st.integers(1, 60), seed=st.integers(0, 99))
def test_resamples_draw_as_many_items_and_repeat(items: int, seed: int) -> None:
    first = np.concatenate(list(weights(items, 30, seed, "x")))
    assert first.shape == (30, items)
    assert (first.sum(1) == items).all()
    assert (first == np.concatenate(list(weights(items, 30, seed, "x")))).all()


def test_kept_and_redrawn_resamples_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = np.concatenate(list(weights(40, 50, 7)))
    monkeypatch.setattr(statistics, "KEEP", 0)
    assert (kept == np.concatenate(list(weights(40, 50, 7)))).all()


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(UserError, match=r"evaluate\.bootstrap"):
        weights(10, 5, 0)


def test_resample_equals_a_loop() -> None:
    rng = np.random.default_rng(0)
    found = Items(labels=rng.integers(2, size=30), p=rng.dirichlet([1, 1], size=(2, 30)))
    chosen = [registry(positive=1)[name] for name in ("accuracy", "f1_positive", "nll")]
    got = resample(found, chosen, lambda: weights(30, 25, 0))
    for r, weight in enumerate(np.concatenate(list(weights(30, 25, 0)))):
        copies = np.repeat(np.arange(30), weight.astype(int))
        again = Items(labels=found.labels[copies], p=found.p[:, copies])
        for metric in chosen:
            assert got[metric.name].resampled[r] == pytest.approx(metric.value(metric.terms(again).sum(1)), rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(only_ours=st.integers(0, 40), only_theirs=st.integers(0, 40), both=st.integers(0, 5))
def test_mcnemar_equals_scipy_binomtest(only_ours: int, only_theirs: int, both: int) -> None:
    ours = np.array([1] * only_ours + [0] * only_theirs + [1] * both, dtype=float)
    theirs = np.array([0] * only_ours + [1] * only_theirs + [1] * both, dtype=float)
    a, b, p = mcnemar(ours, theirs)
    assert (a, b) == (only_ours, only_theirs)
    assert p == pytest.approx(stats.binomtest(a, a + b).pvalue if a + b else 1.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_equals_its_definition(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    for rank, index in enumerate(order):
        expected = max(min(1.0, (len(order) - k) * p_values[order[k]]) for k in range(rank + 1))
        assert adjusted[index] == pytest.approx(expected)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))


def test_minimal_detectable_difference_is_found_with_its_power() -> None:
    rng = np.random.default_rng(0)
    smallest = minimal_detectable(1.0, math.inf, 0.05)
    assert smallest == pytest.approx(1.96 + 0.8416, abs=1e-3)
    found = np.abs(rng.normal(smallest, 1.0, size=20_000)) > 1.96
    assert found.mean() == pytest.approx(0.8, abs=0.01)
