"""Effects on the answer and router statistics, against their definitions by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalroute.evaluation import statistics
from causalroute.evaluation.mediation import contrast
from causalroute.evaluation.metrics import Items, applicable, registry


def values(items: Items, name: str) -> np.ndarray:
    metric = registry()[name]
    assert metric.applies(items)
    return metric.value(metric.terms(items).sum(1))


def posts(p: list[float]) -> np.ndarray:
    """One seed's probabilities of class 1; NaN where the view is missing."""
    found = np.array(p)
    return np.stack([1 - found, found], axis=-1)[None]


def odds(p: float) -> float:
    return math.log(p / (1 - p))


def test_effects_by_hand() -> None:
    """Gold 1 and 0; the second post lacks the swap."""
    views = {"swap_t": posts([0.5, math.nan]), "context": posts([0.6, 0.7])}
    items = Items(np.array([1, 0]), posts([0.9, 0.2]), views=views, prior=np.array([0.75, 0.25]))
    prior = (odds(0.25) - odds(0.25)) / 2  # gold 1, then gold 0
    assert values(items, "effect_swap_t") == pytest.approx([odds(0.9) - odds(0.5)])
    assert values(items, "effect_te") == pytest.approx([(odds(0.9) - odds(0.2)) / 2 - prior])
    assert values(items, "effect_nde_tv") == pytest.approx([(odds(0.6) - odds(0.7)) / 2 - prior])
    assert values(items, "effect_tie") == pytest.approx(values(items, "effect_te") - values(items, "effect_nde_tv"))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), classes=st.integers(2, 4))
def test_a_method_that_ignores_contexts_has_no_direct_effect(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    p, prior = rng.dirichlet(np.ones(classes), size=(2, 15)), rng.dirichlet(np.ones(classes))
    views = {"swap_tv": p, "context": np.broadcast_to(prior, p.shape)}
    items = Items(rng.integers(classes, size=15), p, views=views, prior=prior)
    assert values(items, "effect_swap_tv") == pytest.approx([0, 0])
    assert values(items, "effect_nde_tv") == pytest.approx([0, 0], abs=1e-9)
    assert values(items, "effect_tie") == pytest.approx(values(items, "effect_te"))


def test_one_saturated_answer_does_not_outweigh_the_others() -> None:
    assert contrast(posts([1.0, 0.0])[0], np.array([1, 1])) == pytest.approx([odds(1 - 1e-6), -odds(1 - 1e-6)], rel=1e-6)


def test_more_than_two_classes_take_log_probabilities() -> None:
    p = np.array([[0.2, 0.3, 0.5]])
    assert contrast(p, np.array([2])) == pytest.approx([math.log(0.5)])


def routed(gates: np.ndarray, experts: np.ndarray | None = None) -> Items:
    seeds, count = gates.shape[:2]
    weights = {"gates": gates} | ({} if experts is None else {"experts": experts})
    return Items(np.zeros(count, dtype=np.int64), np.full((seeds, count, 2), 0.5), weights=weights)


def test_router_statistics_by_hand() -> None:
    """Two posts: one all to `both`, one spread over all four gates; three experts, the third idle."""
    gates = np.array([[[0, 0, 0, 1.0], [0.25] * 4]])
    experts = np.array([[[1.0, 0, 0], [0, 1.0, 0]]])
    items = routed(gates, experts)
    assert values(items, "gate_share_tv") == pytest.approx([0.625])
    assert values(items, "gate_share_keep") == pytest.approx([0.125])
    assert values(items, "gate_entropy") == pytest.approx([0.5])
    assert values(items, "expert_entropy") == pytest.approx([0.0])
    assert values(items, "expert_balance") == pytest.approx([math.log(2) / math.log(3)])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), seeds=st.integers(2, 6))
def test_agreement_is_that_of_all_pairs(seed: int, seeds: int) -> None:
    gates = np.random.default_rng(seed).dirichlet(np.ones(4), size=(seeds, 12))
    top = gates.argmax(-1)
    pairs = [(top[a] == top[b]).mean() for a in range(seeds) for b in range(a)]
    assert values(routed(gates), "gate_agreement").mean() == pytest.approx(np.mean(pairs))


def test_agreement_varies_as_its_jackknife_does() -> None:
    """The error over seeds is the jackknife's: leave one seed out, and take the spread of what is left."""
    gates = np.random.default_rng(3).dirichlet(np.ones(4), size=(6, 40))
    top = gates.argmax(-1)

    def mean(chosen: list[int]) -> float:
        return float(np.mean([(top[a] == top[b]).mean() for a in chosen for b in chosen if b < a]))

    left_out = np.array([mean([s for s in range(6) if s != out]) for out in range(6)])
    jackknife = math.sqrt(5 / 6 * ((left_out - left_out.mean()) ** 2).sum())
    assert values(routed(gates), "gate_agreement").std(ddof=1) / math.sqrt(6) == pytest.approx(jackknife)


def test_metrics_apply_where_their_parts_are() -> None:
    plain = Items(np.zeros(3, dtype=np.int64), np.full((1, 3, 2), 0.5))
    names = {metric.name for metric in applicable(registry(), plain)}
    assert not any(name.startswith(("effect_", "gate_", "expert_")) for name in names)
    one_seed = {metric.name for metric in applicable(registry(), routed(np.full((1, 3, 4), 0.25)))}
    assert "gate_entropy" in one_seed
    assert "gate_agreement" not in one_seed
    with pytest.raises(ValueError, match="prior"):
        registry()["effect_te"].terms(plain)


def test_a_gate_that_is_never_used_has_an_upper_end() -> None:
    items = routed(np.tile(np.eye(4)[3], (5, 60, 1)))
    chosen = [registry()[name] for name in ("gate_share_keep", "gate_share_tv")]
    samples = statistics.resample(items, chosen, lambda: statistics.weights(60, 50, 0))
    never, always = (statistics.estimate(samples[metric.name], 0.95, metric.bounds, share=metric.share) for metric in chosen)
    assert (never.low, always.high) == (0, 1)
    assert never.high == pytest.approx(1 - always.low)
    assert 0.03 < never.high < 0.1
