"""The statistics of the audit against their textbook forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalroute.audit import probes, tests

COUNTS = st.integers(1, 30)


@given(COUNTS, COUNTS, st.data())
@settings(max_examples=60, deadline=None)
def test_presence_is_fishers_test(first: int, second: int, data: st.DataObject) -> None:
    """Exact wherever it could pass; a cue of |z| < 1 has the normal approximation, which is far from any bound too."""
    from scipy.stats import fisher_exact

    a, b = data.draw(st.integers(0, first)), data.draw(st.integers(0, second))
    tested = tests.presence(np.array([[a], [b]], dtype=float), np.array([first, second], dtype=float))
    table = [[a, first - a], [b, second - b]]
    p = min(1.0, 2 * min(fisher_exact(table, alternative=side).pvalue for side in ("less", "greater")))
    if tested.log10_p[0] < np.log10(0.3):
        assert 10 ** tested.log10_p[0] == pytest.approx(p, rel=1e-6)
    else:
        assert p > 0.1


@given(COUNTS, COUNTS, st.data())
@settings(max_examples=40, deadline=None)
def test_the_prior_draws_log_odds_to_nothing_and_keeps_their_sign(first: int, second: int, data: st.DataObject) -> None:
    a, b = data.draw(st.integers(0, first)), data.draw(st.integers(0, second))
    size, total = np.array([float(first)]), np.array([float(first + second)])
    effect, z = tests.log_odds(np.array([float(a)]), np.array([float(a + b)]), size, total)
    assert np.isfinite([effect[0], z[0]]).all()
    lean = a * second - b * first
    if 0 < a < first and 0 < b < second:
        plain = np.log(a * (second - b) / (b * (first - a)))
        assert abs(effect[0]) <= abs(plain) + 1e-9 or abs(effect[0] - plain) < 0.6
    if abs(lean) > max(first, second):
        assert np.sign(effect[0]) == np.sign(lean)


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_rank_is_mann_whitney(seed: int) -> None:
    from scipy.stats import mannwhitneyu

    random = np.random.default_rng(seed)
    values, labels = random.integers(0, 6, (40, 1)).astype(float), np.arange(40) % 2
    tested = tests.rank(values, labels, 2)
    expected = mannwhitneyu(values[labels == tested.label[0], 0], values[labels != tested.label[0], 0], use_continuity=False, method="asymptotic")
    assert 10 ** tested.log10_p[0] == pytest.approx(expected.pvalue, rel=1e-6)
    assert tested.effect[0] == pytest.approx(expected.statistic / 400)


def test_with_three_classes_each_is_tested_against_the_rest() -> None:
    counts, sizes = np.array([[0.0, 30.0], [0.0, 5.0], [90.0, 5.0]]), np.array([100.0, 100.0, 100.0])
    tested = tests.presence(counts, sizes)
    assert tested.label.tolist() == [2, 0]
    alone = tests.presence(np.array([[5.0 + 5.0], [30.0]]), np.array([200.0, 100.0]))
    assert tested.log10_p[1] == pytest.approx(alone.log10_p[0] + np.log10(3))


def test_cues_may_be_looked_for_among_posts_of_their_own() -> None:
    counts = np.array([[9.0, 4.0], [2.0, 30.0]])
    sizes = np.array([[12.0, 40.0], [15.0, 50.0]])
    together = tests.presence(counts, sizes)
    for column in range(2):
        alone = tests.presence(counts[:, [column]], sizes[:, column])
        assert (together.label[column], together.log10_p[column]) == (alone.label[0], pytest.approx(alone.log10_p[0]))


@given(st.lists(st.floats(-30, 0), max_size=40))
@settings(max_examples=60, deadline=None)
def test_adjusted_p_are_those_of_bonferroni_and_benjamini_hochberg(log10_p: list[float]) -> None:
    from scipy.stats import false_discovery_control

    bonferroni, rates = tests.adjusted(np.array(log10_p))
    assert np.allclose(10**bonferroni, np.minimum(1, 10 ** np.array(log10_p) * len(log10_p)))
    if log10_p:
        assert np.allclose(10**rates, false_discovery_control(10 ** np.array(log10_p)))
        assert (rates <= bonferroni + 1e-12).all()


def test_folds_are_stratified_and_keep_equal_texts_together() -> None:
    labels = np.array([0] * 70 + [1] * 30)
    groups = [f"g{i // 2}" for i in range(100)]
    fold = probes.assign_folds(labels, groups, 4, 0)
    assert all(fold[i] == fold[i + 1] for i in range(0, 100, 2))
    sizes = [int(((fold == f) & (labels == 1)).sum()) for f in range(4)]
    assert max(sizes) - min(sizes) <= 2
    assert (fold == probes.assign_folds(labels, groups, 4, 0)).all()


def test_the_wilson_interval_is_the_textbook_one() -> None:
    found = probes.score(8, 10, np.array([0] * 6 + [1] * 4))
    assert (found["accuracy"], found["majority"], found["items"]) == (0.8, 0.6, 10)
    assert (found["low"], found["high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_a_probe_explains_nothing_when_it_repeats_the_class_shares() -> None:
    judged = probes.Judged(np.array([0, 1, 1, 0]))
    shares = np.full((2, 2), 0.5)
    judged.add(np.array([True, True, False, False]), shares, shares)
    assert (judged.right, judged.explained()) == (1, 0.0)
    judged.add(np.array([False, False, True, True]), np.array([[0.0, 1.0], [1.0, 0.0]]), shares)
    assert judged.right == 3
    assert judged.explained() == pytest.approx(0.5)
