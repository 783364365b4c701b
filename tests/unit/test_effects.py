"""Effects of toy structural models whose effects are known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from benchmarks import effects as benchmark
from hypothesis import given, settings
from hypothesis import strategies as st

from causalroute.model import effects as units
from causalroute.model.effects import Effects, Scores, on_label

NUMBER = st.floats(-3, 3)


def world(a: float, b: float, c: float, d: float, t_s: torch.Tensor, v_s: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Y = a t_s + b v_s + c t_s v_s + d k for class 1, minus that for class 0."""
    y = a * t_s + b * v_s + c * t_s * v_s + d * k
    return torch.stack([-y, y], 1)


def worlds(a, b, c, d):
    t_core, v_core, t_s, v_s = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4).T
    k, o = -t_core * v_core, torch.zeros(16)
    scores = Scores(*(world(a, b, c, d, *arguments) for arguments in [(t_s, v_s, k), (o, o, o), (t_s, o, o), (o, v_s, o), (t_s, v_s, o)]))
    return scores, t_s, v_s, k


@settings(deadline=None)
@given(NUMBER, NUMBER, NUMBER, NUMBER)
def test_closed_form_of_a_model_with_direct_interacting_and_mediated_paths(a, b, c, d):
    scores, t_s, v_s, k = worlds(a, b, c, d)
    found = Effects.of(scores)
    label = torch.ones(16, dtype=torch.int64)
    for name, expected in [
        ("nde_t", a * t_s),
        ("nde_v", b * v_s),
        ("interaction", c * t_s * v_s),
        ("indirect", d * k),
        ("te", a * t_s + b * v_s + c * t_s * v_s + d * k),
    ]:
        torch.testing.assert_close(on_label(getattr(found, name), label), expected.float(), atol=1e-5, rtol=1e-5, msg=name)


@settings(deadline=None)
@given(NUMBER, NUMBER, NUMBER)
def test_forms_of_the_indirect_effect(a, b, d):
    scores, t_s, v_s, k = worlds(a, b, 0.0, d)
    found, label = Effects.of(scores), torch.ones(16, dtype=torch.int64)
    torch.testing.assert_close(found.indirect_past(text=True, image=True), found.indirect)
    torch.testing.assert_close(found.indirect_past(text=False, image=False), found.te)
    torch.testing.assert_close(on_label(found.indirect_past(text=True, image=False), label), b * v_s + d * k, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(on_label(found.indirect_past(text=False, image=True), label), a * t_s + d * k, atol=1e-5, rtol=1e-5)
    one, zero = torch.ones(16), torch.zeros(16)
    torch.testing.assert_close(found.debiased(one, one), found.indirect, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.debiased(zero, zero), found.te)
    torch.testing.assert_close(on_label(found.debiased(one, zero, a_t=0.5), label), a / 2 * t_s + b * v_s + d * k, atol=1e-5, rtol=1e-5)


def test_no_treatment_may_be_one_vector_for_all_items():
    y = torch.randn(5, 3)
    found = Effects.of(Scores(y, y[0], y, y, y))
    torch.testing.assert_close(found.te, y - y[0])
    assert not found.indirect.any()


@settings(deadline=None)
@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_two_class_effects_are_log_odds_against_the_prior(p, prior):
    scores = torch.tensor([[1 - p, p]]).log()
    found = units.effect(scores + 3.0, torch.tensor([1 - prior, prior]).log())
    expected = math.log(p / (1 - p)) - math.log(prior / (1 - prior))
    assert found[0, 1].item() == pytest.approx(expected, abs=1e-4)
    assert found[0, 0].item() == pytest.approx(-expected, abs=1e-4)
    added = units.to_scores(found)
    assert (added[0, 1] - added[0, 0]).item() == pytest.approx(expected, abs=1e-4)
    assert units.strength(found).item() == pytest.approx(abs(expected), abs=1e-4)


def test_effects_of_more_classes_are_log_probability_ratios():
    p, prior = torch.tensor([[0.2, 0.3, 0.5]]), torch.tensor([0.5, 0.25, 0.25])
    found = units.effect(p.log(), prior.log())
    torch.testing.assert_close(found, (p / prior).log())
    torch.testing.assert_close((prior.log() + units.to_scores(found)).softmax(-1), p)
    assert units.strength(found).item() == pytest.approx(math.log(2.0) - math.log(0.4), abs=1e-5)


def test_the_benchmark_compares_estimates_with_planted_effects_like_a_loop():
    random = np.random.default_rng(0)
    planted = np.where(random.random(200) < 0.8, 1.4, -1.4)
    rows = np.stack([0.9 * planted + 0.3 * random.normal(size=200) for _ in range(3)])
    found = benchmark.compared(rows, planted)
    ratios, slopes = [], []
    for row in rows:
        ratios.append(sum(abs(value) for value in row) / 200 / 1.4)
        slopes.append(sum(a * b for a, b in zip(row, planted, strict=True)) / sum(b * b for b in planted))
    assert found["ratio"] == pytest.approx(sum(ratios) / 3)
    assert found["slope"] == pytest.approx(sum(slopes) / 3)
    assert found["slope_half"] == pytest.approx(4.302653 * np.std(slopes, ddof=1) / math.sqrt(3), rel=1e-5)
    assert found["r"] == pytest.approx(np.mean([np.corrcoef(row, planted)[0, 1] for row in rows]))
    assert benchmark.sampled(planted) == pytest.approx(math.log((planted > 0).sum() / (planted < 0).sum()) / 1.4)


def test_the_bar_of_the_benchmark_wants_scale_and_order():
    planted = {"text": np.array([1.0, -1.0] * 50), "image": np.array([1.0, -1.0] * 50)}
    planted["both"] = planted["text"] + planted["image"]

    def passed(scale, noise=0.0):
        draw = np.random.default_rng(0).normal(size=(2, 100))
        return [row["passed"] for row in benchmark.rows_of(0.7, planted, "truth", {side: scale * values + noise * draw for side, values in planted.items()})]

    assert passed(1.0) == passed(0.9) == [True] * 3
    assert passed(0.8) == passed(1.2) == [False] * 3
    assert passed(0.7, 0.8)[0] is False, "noise lifts the ratio, not the correlation"
