"""Metrics against scikit-learn and naive loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from causalroute.evaluation import calibration, metrics
from causalroute.evaluation.metrics import BINS, Items, applicable, group_metrics, registry


def items(seed: int, seeds: int = 2, count: int = 60, classes: int = 2, **extra: object) -> Items:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.7), size=(seeds, count))
    return Items(labels=rng.integers(classes, size=count), p=p, **extra)  # type: ignore[arg-type]


def values(found: Items, name: str, **names: int) -> np.ndarray:
    metric = registry(**names)[name]
    return metric.value(metric.terms(found).sum(1))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 4), count=st.integers(1, 40))
def test_answers_equal_scikit_learn(seed: int, classes: int, count: int) -> None:
    found = items(seed, 2, count, classes)
    for s in range(2):
        answer, gold = found.p[s].argmax(-1), found.labels
        assert values(found, "accuracy")[s] == pytest.approx(sk.accuracy_score(gold, answer))
        macro = sk.precision_recall_fscore_support(gold, answer, average="macro", zero_division=0)
        for got, expected in zip(("precision_macro", "recall_macro", "f1_macro"), macro, strict=False):
            assert values(found, got)[s] == pytest.approx(expected)
        assert values(found, "f1_weighted")[s] == pytest.approx(sk.f1_score(gold, answer, average="weighted", zero_division=0))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_positive_class_and_probability_scores_equal_scikit_learn(seed: int) -> None:
    found = items(seed)
    for s in range(2):
        expected = sk.precision_recall_fscore_support(found.labels, found.p[s].argmax(-1), average="binary", pos_label=1, zero_division=0)
        for got, value in zip(("precision_positive", "recall_positive", "f1_positive"), expected, strict=False):
            assert values(found, got, positive=1)[s] == pytest.approx(value)
        assert values(found, "nll")[s] == pytest.approx(sk.log_loss(found.labels, found.p[s], labels=[0, 1]))
        assert values(found, "brier")[s] == pytest.approx(2 * sk.brier_score_loss(found.labels, found.p[s][:, 1]))


def test_ece_equals_a_loop() -> None:
    found = items(3, count=200, classes=3)
    for s in range(2):
        confidence, hits, total = found.p[s].max(-1), found.p[s].argmax(-1) == found.labels, 0.0
        for b in range(BINS):
            inside = (confidence > b / BINS) & (confidence <= (b + 1) / BINS)
            if inside.any():
                total += inside.mean() * abs(hits[inside].mean() - confidence[inside].mean())
        assert values(found, "ece")[s] == pytest.approx(total)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_weighted_sums_equal_repeated_items(seed: int) -> None:
    """What the bootstrap relies on: weights count like copies, for every metric."""
    found = items(seed, groups={"g": np.array(["a", "b"] * 30)}, calibrated=items(seed + 1).p)
    rng = np.random.default_rng(seed)
    weight = np.bincount(rng.integers(60, size=60), minlength=60)
    copies = np.repeat(np.arange(60), weight)
    again = Items(labels=found.labels[copies], p=found.p[:, copies], groups={"g": found.groups["g"][copies]}, calibrated=items(seed + 1).p[:, copies])
    cells = (("g", "a"), ("g", "b"))
    for metric in [*applicable(registry(positive=1), found), *group_metrics(cells, cells)]:
        weighted = metric.value(np.einsum("n,snq->sq", weight.astype(float), metric.terms(found)))
        assert np.allclose(weighted, metric.value(metric.terms(again).sum(1)), equal_nan=True), metric.name


def test_causal_metrics_by_hand() -> None:
    """Four items of gold 0 0 1 1, answers 0 1 1 1; the third lacks the views."""
    p = one([0, 1, 1, 1])
    views = {"swap_t": one([0, 0, None, 1]), "context": one([0, 0, None, 1]), "core": one([1, 0, None, 1]), "held_tv": one([1, 1, None, 1])}
    found = Items(labels=np.array([0, 0, 1, 1]), p=p, views=views, majority=0)
    assert values(found, "consistency_t") == pytest.approx([2 / 3])
    assert values(found, "core_accuracy") == pytest.approx([2 / 3])
    assert values(found, "held_out_accuracy_tv") == pytest.approx([1 / 3])
    assert values(found, "held_out_consistency_tv") == pytest.approx([2 / 3])
    assert values(found, "context_excess") == pytest.approx([1 - 2 / 3])
    assert {"consistency_v", "consistency_tv", "pair_accuracy"}.isdisjoint(metric.name for metric in applicable(registry(), found))


def one(answers: list[int | None]) -> np.ndarray:
    return np.array([[[np.nan, np.nan] if a is None else np.eye(2)[a] for a in answers]])


def test_pairs_by_hand() -> None:
    """Rewrites flip the label of the first three; the answer changes on the first and the last."""
    rewrites = (np.array([1, 1, 0, 0]), one([1, 0, 1, 1]))
    found = Items(labels=np.array([0, 0, 1, 0]), p=one([0, 0, 1, 0]), rewrites=rewrites)
    assert values(found, "pair_accuracy") == pytest.approx([1 / 4])
    assert values(found, "flip_rate") == pytest.approx([1 / 3])
    assert [metric.name for metric in applicable(registry(), found)] == ["flip_rate", "pair_accuracy"]


def test_worst_group_is_the_minimum_and_skips_missing_groups() -> None:
    names = np.array(["a", "a", "b", "b"])
    found = Items(labels=np.array([0, 0, 1, 1]), p=one([0, 1, 1, 1]), groups={"g": names})
    cells = (("g", "a"), ("g", "b"))
    metric, first, _ = group_metrics(cells, cells)
    terms = metric.terms(found)[0]
    assert metric.value(terms.sum(0)) == pytest.approx(0.5)
    assert metric.value(terms[2:].sum(0)) == pytest.approx(1.0)
    assert np.isnan(first.value(terms[2:].sum(0)))


def test_missing_parts_are_programming_errors() -> None:
    with pytest.raises(ValueError, match="temperature"):
        values(items(0), "nll_calibrated")
    with pytest.raises(ValueError, match="rewrites"):
        values(items(0), "pair_accuracy")


def test_every_metric_says_which_way_is_better() -> None:
    assert {name for name, metric in registry(positive=1).items() if metric.higher_is_better is False} == {
        *(f"{name}{end}" for name in ("ece", "brier", "nll") for end in ("", "_calibrated")),
        "context_excess",
        "unparsed",
    }


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), factor=st.floats(0.3, 4.0))
def test_temperature_undoes_a_known_one(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    true = rng.dirichlet([1, 1, 1], size=4000)
    labels = (true.cumsum(1) > rng.random((4000, 1))).argmax(1)
    found = calibration.fit_temperature(calibration.soften(true, factor), labels)
    assert found == pytest.approx(1 / factor, rel=0.12)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_temperature_keeps_answers_and_never_raises_validation_nll(seed: int) -> None:
    found = items(seed, count=80, classes=3)
    temperatures = calibration.fit_temperatures(found.p, found.labels)
    softened = calibration.soften(found.p, temperatures)
    assert (softened.argmax(-1) == found.p.argmax(-1)).all()
    after = Items(labels=found.labels, p=softened)
    assert (values(after, "nll") <= values(found, "nll") + 1e-6).all()


def test_reliability_counts_every_answer_once() -> None:
    found = items(5, count=90)
    count, confidence, accuracy = calibration.reliability(found.p, found)
    assert count.sum() == 2 * 90
    assert np.nansum(count * accuracy) == pytest.approx(found.hits.sum())
    assert np.nansum(count * confidence) == pytest.approx(found.p.max(-1).sum())
    assert metrics.accuracy(metrics.confusion(found).sum((0, 1))) == pytest.approx(found.hits.mean())
