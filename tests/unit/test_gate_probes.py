"""Probes of the gate against slow or closed answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalroute.counterfactual import probes
from causalroute.counterfactual.fusion import Fusion


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_auc_is_the_share_of_pairs(real: list[int], seed: int) -> None:
    made = np.random.default_rng(seed).integers(6, size=len(real)).astype(float)
    first = np.array(real, dtype=float)
    slow = np.mean([(b > a) + 0.5 * (a == b) for a in first for b in made])
    found = probes.auc(first, made)
    assert found["value"] == pytest.approx(slow)
    assert found["low"] <= found["value"] <= found["high"]


def test_auc_interval_covers_one_half_nineteen_times_in_twenty() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        shared = random.normal(size=60)  # both versions of a post are alike, which an interval over inputs would not know
        found = probes.auc(shared + random.normal(size=60), shared + random.normal(size=60))
        inside += found["low"] <= 0.5 <= found["high"]
    assert 0.92 <= inside / 400 <= 0.99


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=40), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_posts_that_share_a_text_or_an_image_share_a_fold(keys: list[tuple[int, int]], folds: int) -> None:
    groups = [(f"t{a}", f"i{b}") for a, b in keys]
    fold = probes.folds_of(groups, folds, 0)
    assert set(fold) <= set(range(folds))
    for i, one in enumerate(groups):
        assert all(fold[i] == fold[j] for j, other in enumerate(groups) if set(one) & set(other))


def test_posts_without_any_key_stand_alone() -> None:
    assert len(set(probes.folds_of([()] * 40, 4, 0).tolist())) == 4


def test_a_constant_answer_gets_chance_whatever_the_class_sizes() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    found = probes.balanced(labels == 0, labels)
    assert found["value"] == 0.5
    assert found["low"] < 0.5 < found["high"]
    whole = probes.balanced(np.ones(100, dtype=bool), labels)
    assert (whole["value"], whole["high"]) == (1.0, 1.0)
    assert whole["low"] < 0.95, "ten posts of a class prove little"


def test_shares_near_the_ends_have_an_interval() -> None:
    found = probes.wilson(0, 50)
    assert (found["value"], found["low"]) == (0.0, 0.0)
    assert 0.05 < found["high"] < 0.1
    assert probes.wilson(0, 0)["high"] > 0.5


def test_cells_count_alike_and_small_ones_not_at_all() -> None:
    cells = np.array([0] * 90 + [1] * 10 + [2] * (probes.CELL - 1))
    right = cells == 0
    weights = probes.resamples(len(cells), 0)
    found = probes.over_cells(right, cells, weights)
    assert found[0] == 0.5
    assert len(found) == probes.RESAMPLES + 1
    assert found[1:].max() == 0.5, "a cell is right throughout or wrong throughout"


def test_ratio_of_skills() -> None:
    whole, part = np.array([0.9, 0.88, 0.92]), np.array([0.7, 0.65, 0.72])
    found = probes.skill_ratio(part, whole, 0.5)
    assert found["value"] == pytest.approx(0.5)
    assert found["low"] < 0.5 < found["high"] < 0.6
    assert probes.skill_ratio(part, np.full(3, 0.5), 0.5)["value"] > 100, "no skill to lose: the caller must ask first"


def test_the_linear_probe_finds_what_is_linear_and_survives_constant_features() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(3, size=600)
    x = random.normal(size=(600, 5))
    x[np.arange(600), labels] += 4
    x[:, 4] = 7.0
    fold = np.arange(600) % 3
    real, other = probes.read_classes(x, [x + 0.01], labels, fold, 3)
    assert (real == labels).mean() > 0.8
    assert (other == real).mean() > 0.95
    assert (probes.read_classes(x[:, 3:], [], labels, fold, 3)[0] == labels).mean() < 0.45


def test_a_shift_is_told_and_a_new_draw_is_not() -> None:
    random = np.random.default_rng(1)
    real, fold = random.normal(size=(400, 8)), np.arange(400) % 4
    same, shifted = random.normal(size=(400, 8)), real + np.array([3.0] + [0.0] * 7)
    assert probes.told_apart(real, same, fold)["low"] < 0.55
    assert probes.told_apart(real, shifted, fold)["low"] > 0.9


def test_words_are_told_and_read() -> None:
    random = np.random.default_rng(2)
    texts = [f"{'good' if i % 2 else 'awful'} thing {random.integers(30)}" for i in range(300)]
    fold, labels = np.arange(300) % 3, np.arange(300) % 2
    assert probes.words_apart(texts, [f"{text} edited" for text in texts], fold)["low"] > 0.99
    assert probes.words_apart(texts, texts, fold)["value"] == pytest.approx(0.5)
    assert (probes.words_read(texts[:200], labels[:200], texts[200:]) == labels[200:]).mean() > 0.95


def test_the_fusion_probe_reads_an_exclusive_or_and_repeats_itself() -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(2, size=(2, 800))
    text, image = (np.stack([2.0 * one - 1, random.normal(size=800)], axis=1) + 0.3 * random.normal(size=(800, 2)) for one in (a, b))
    answers = [Fusion(2, 0).fit(text[:600, None], image[:600, None], (a ^ b)[:600], np.ones(600)).read(text[600:], image[600:]) for _ in range(2)]
    assert (answers[0].argmax(axis=1) == (a ^ b)[600:]).mean() > 0.95
    assert np.array_equal(answers[0], answers[1])
    assert np.allclose(answers[0].sum(axis=1), 1)
    ignored = Fusion(2, 0).fit(text[:, None], image[:, None], a ^ b, np.r_[np.zeros(400), np.ones(400)])
    assert not np.array_equal(ignored.read(text[600:], image[600:]), answers[0])
