"""The same numbers from SciPy, statsmodels, scikit-learn and torchmetrics, where they have the same thing, edge cases included."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint
from torchmetrics.classification import MulticlassCalibrationError, MulticlassF1Score

from causalroute.evaluation import calibration
from causalroute.evaluation.metrics import BINS, Items, registry
from causalroute.evaluation.statistics import Sample, difference, estimate, holm, mcnemar, minimal_detectable, resample, t_interval, weights

CASES = ("random", "all right", "all wrong", "one class absent", "one class answered", "one item", "ties")


def case(name: str, seed: int, classes: int = 3) -> Items:
    """One seed's answers; `ties`: rows with two equal highest probabilities."""
    rng = np.random.default_rng(seed)
    count = 1 if name == "one item" else 50
    labels = rng.integers(classes - (name == "one class absent"), size=count)
    p = rng.dirichlet(np.full(classes, 0.7), size=count)
    if name in ("all right", "all wrong"):
        p = 0.1 / classes + 0.9 * np.eye(classes)[(labels + (name == "all wrong")) % classes]
    if name == "one class answered":
        p = np.tile(np.array([0.6, *[0.4 / (classes - 1)] * (classes - 1)]), (count, 1))
    if name == "ties":
        p[:, :2] = p[:, :2].mean(-1, keepdims=True)
    return Items(labels, p[None])


def value(items: Items, name: str, positive: int | None = None) -> float:
    metric = registry(positive)[name]
    return float(metric.value(metric.terms(items).sum(1))[0])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("classes", [2, 3])
def test_answers_in_every_average_equal_scikit_learn(name: str, classes: int) -> None:
    items = case(name, 1, classes)
    answer, gold = items.p[0].argmax(-1), items.labels
    assert value(items, "accuracy") == pytest.approx(sk.accuracy_score(gold, answer))
    averages = {"macro": None, **({"binary": 1} if classes == 2 else {})}
    for average, positive in averages.items():
        expected = sk.precision_recall_fscore_support(gold, answer, average=average, zero_division=0)[:3]
        end = "positive" if positive else "macro"
        assert [value(items, f"{one}_{end}", positive) for one in ("precision", "recall", "f1")] == pytest.approx(expected)
    assert value(items, "f1_weighted") == pytest.approx(sk.f1_score(gold, answer, average="weighted", zero_division=0))
    assert value(items, "accuracy") == pytest.approx(sk.f1_score(gold, answer, average="micro"))


@pytest.mark.parametrize("name", [name for name in CASES if name != "ties"])  # torch and NumPy both take the first of two equals, but say so nowhere
def test_macro_f1_equals_torchmetrics(name: str) -> None:
    items = case(name, 2)
    found = MulticlassF1Score(3, average="macro")(torch.from_numpy(items.p[0]), torch.from_numpy(items.labels))
    assert value(items, "f1_macro") == pytest.approx(float(found), rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_probability_scores_equal_scikit_learn(name: str) -> None:
    items = case(name, 3)
    assert value(items, "nll") == pytest.approx(sk.log_loss(items.labels, items.p[0], labels=[0, 1, 2]))
    assert value(items, "brier") == pytest.approx(sk.brier_score_loss(items.labels, items.p[0], labels=[0, 1, 2]))


@pytest.mark.parametrize("name", CASES)
def test_calibration_error_equals_torchmetrics(name: str) -> None:
    items = case(name, 4)
    found = MulticlassCalibrationError(3, n_bins=BINS, norm="l1")(torch.from_numpy(items.p[0]), torch.from_numpy(items.labels))
    assert value(items, "ece") == pytest.approx(float(found), abs=1e-6)


@pytest.mark.parametrize("name", ["random", "one class absent"])
def test_reliability_equals_scikit_learn(name: str) -> None:
    items = case(name, 5)
    confidence, hits = items.p[0].max(-1), items.hits[0]
    accuracy, mean_confidence = calibration_curve(hits, confidence, n_bins=BINS, strategy="uniform")
    count, ours, right = calibration.reliability(items.p, items)
    assert ours[count > 0] == pytest.approx(mean_confidence)
    assert right[count > 0] == pytest.approx(accuracy)


def test_bootstrap_error_equals_scipy() -> None:
    """Both estimate the same standard error; 4000 resamples each know it to about 1 %."""
    items = case("random", 6)
    names = ("accuracy", "f1_macro", "nll")
    samples = resample(items, [registry()[name] for name in names], lambda: weights(50, 4000, 0))
    rows = np.arange(50)
    for name in names:
        metric = registry()[name]

        def statistic(chosen: np.ndarray, metric: object = metric) -> float:
            again = Items(items.labels[chosen], items.p[:, chosen])
            return float(metric.value(metric.terms(again).sum(1))[0])  # type: ignore[attr-defined]

        found = stats.bootstrap((rows,), statistic, n_resamples=4000, vectorized=False, rng=np.random.default_rng(0), method="basic")
        assert samples[name].resampled[:, 0].std(ddof=1) == pytest.approx(found.standard_error, rel=0.05)


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(-5, 5), min_size=2, max_size=10), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_seed_interval_equals_scipy(values: list[float], confidence: float) -> None:
    numbers = np.array(values)
    if numbers.std() < 1e-9:
        assert t_interval(numbers, confidence) == pytest.approx((numbers.mean(), numbers.mean()))  # SciPy answers NaN
    else:
        expected = stats.t.interval(confidence, len(numbers) - 1, numbers.mean(), stats.sem(numbers))
        assert t_interval(numbers, confidence) == pytest.approx(expected)


@pytest.mark.parametrize(("right", "total"), [(120, 200), (195, 200), (1, 200), (7, 12)])
def test_interval_of_a_share_equals_wilsons(right: int, total: int) -> None:
    """One seed: the interval is the proportion's, from an error known to about 1 % (20000 resamples)."""
    hits = np.arange(total) < right
    items = Items(np.zeros(total, dtype=np.int64), np.eye(2)[1 - hits.astype(int)][None])
    sample = resample(items, [registry()["accuracy"]], lambda: weights(total, 20_000, 0))["accuracy"]
    found = estimate(sample, 0.95, (0.0, 1.0), share=True)
    expected = proportion_confint(right, total, 0.05, method="wilson")
    assert (found.low, found.high) == pytest.approx(expected, abs=0.02 * (expected[1] - expected[0]))


@pytest.mark.parametrize(("answer", "right"), [(0, True), (1, False)])
@pytest.mark.parametrize("total", [1, 30])
def test_interval_without_any_variance_equals_clopper_and_pearsons(answer: int, right: bool, total: int) -> None:
    items = Items(np.zeros(total, dtype=np.int64), np.tile(np.eye(2)[answer], (3, total, 1)))
    sample = resample(items, [registry()["accuracy"]], lambda: weights(total, 50, 0))["accuracy"]
    found = estimate(sample, 0.95, (0.0, 1.0), share=True)
    assert (found.low, found.high) == pytest.approx(proportion_confint(total * right, total, 0.05, method="beta"))


def test_share_of_some_items_is_known_from_those_alone() -> None:
    """Ten of 200 items have the view, all of them kept: the interval is that of ten."""
    p = np.tile(np.eye(2)[0], (2, 200, 1))
    view = np.where((np.arange(200) < 10)[None, :, None], p, np.nan)
    items = Items(np.zeros(200, dtype=np.int64), p, views={"swap_t": view})
    sample = resample(items, [registry()["consistency_t"]], lambda: weights(200, 200, 0))["consistency_t"]
    assert estimate(sample, 0.95, (0.0, 1.0), share=True).low == pytest.approx(proportion_confint(10, 10, 0.05, method="beta")[0])


@settings(max_examples=40, deadline=None)
@given(only_ours=st.integers(0, 60), only_theirs=st.integers(0, 60), both=st.integers(0, 5))
def test_mcnemar_equals_scipy_and_statsmodels(only_ours: int, only_theirs: int, both: int) -> None:
    ours = np.array([1] * only_ours + [0] * only_theirs + [1] * both, dtype=float)
    theirs = np.array([0] * only_ours + [1] * only_theirs + [1] * both, dtype=float)
    *found, p = mcnemar(ours, theirs)
    assert found == [only_ours, only_theirs]
    assert 0 <= p <= 1
    if only_ours + only_theirs:
        assert p == pytest.approx(stats.binomtest(only_ours, only_ours + only_theirs).pvalue)
        assert p == pytest.approx(sm_mcnemar([[both, only_ours], [only_theirs, 0]], exact=True).pvalue)
    else:
        assert p == 1.0


@pytest.mark.parametrize(("ours", "theirs"), [(120, 80), (105, 95), (150, 60)])
def test_mcnemar_is_near_the_corrected_chi_square_where_many_differ(ours: int, theirs: int) -> None:
    hits = np.array([1.0] * ours + [0.0] * theirs)
    p = mcnemar(hits, 1 - hits)[2]
    approximate = sm_mcnemar([[0, ours], [theirs, 0]], exact=False, correction=True).pvalue
    assert p == pytest.approx(min(1.0, approximate), abs=0.005)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.05, 1.0])), min_size=1, max_size=30))
def test_holm_equals_statsmodels_ties_included(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]) == []


@pytest.mark.parametrize("freedom", [4, 9, 30, 200])
def test_detectable_difference_equals_statsmodels(freedom: int) -> None:
    """statsmodels takes the non-central t; the sum of two quantiles is 2 % off at 4 degrees of freedom and exact in the limit."""
    error = 1 / math.sqrt(freedom + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = TTestPower().solve_power(nobs=freedom + 1, alpha=0.05, power=0.8, alternative="two-sided")
    assert minimal_detectable(error, freedom, 0.05) == pytest.approx(expected, rel=0.03 if freedom < 10 else 0.01)


def test_paired_test_equals_scipys_with_many_items_and_one_seed() -> None:
    rng = np.random.default_rng(0)
    ours = rng.random((1, 400))
    theirs = ours + 0.03 + 0.3 * rng.normal(size=(1, 400))
    blocks = np.concatenate(list(weights(400, 20_000, 0)))
    samples = [Sample(one.mean(1), blocks @ one.T / 400) for one in (ours, theirs)]
    found, expected = difference(*samples, 0.95), stats.ttest_rel(ours[0], theirs[0])
    assert found.p == pytest.approx(expected.pvalue, rel=0.05)
    low, high = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02 * (high - low))


def test_paired_test_equals_scipys_with_seeds_alone() -> None:
    """Without any difference between items it is the paired t test over seeds."""
    ours, theirs = np.array([0.61, 0.64, 0.60, 0.66, 0.63]), np.array([0.60, 0.60, 0.61, 0.62, 0.60])
    samples = [Sample(one, np.tile(one, (50, 1))) for one in (ours, theirs)]
    found, expected = difference(*samples, 0.95), stats.ttest_rel(ours, theirs)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_few_items_that_all_differ_are_no_proof() -> None:
    """Three items, the method right and the reference wrong on all: McNemar's p is .25, and no test may say less."""
    samples = [Sample(np.full(2, hit), np.full((500, 2), hit), trials=3) for hit in (1.0, 0.0)]
    assert difference(*samples, 0.95).p == pytest.approx(mcnemar(np.ones(3), np.zeros(3))[2])


def test_resamples_that_miss_a_small_group_are_left_out() -> None:
    values = np.array([0.5, 0.7])
    resampled = np.tile(values, (40, 1)) + np.random.default_rng(0).normal(0, 0.1, size=(40, 2))
    whole = estimate(Sample(values, resampled), 0.95)
    holed = estimate(Sample(values, np.concatenate([resampled, np.full((9, 2), np.nan)])), 0.95)
    assert holed == whole
    assert np.isfinite([whole.low, whole.high]).all()


def test_a_metric_without_any_item_stays_nan() -> None:
    items = Items(np.zeros(4, dtype=np.int64), np.full((1, 4, 2), 0.5), views={"swap_t": np.full((1, 4, 2), np.nan)})
    sample = resample(items, [registry()["consistency_t"]], lambda: weights(4, 30, 0))["consistency_t"]
    found = estimate(sample, 0.95, (0.0, 1.0), share=True)
    assert math.isnan(found.mean)
    assert sample.trials == 0
