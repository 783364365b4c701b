"""The reference router against loops written from the specification."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import ROOT

from causalroute.routing import combine, dispatch, dispatch_product, load_balance, permute, reference, route, z_loss

INF = float("inf")


def naive(logits, k, renormalize=False, bias=None, allowed=None):
    """Row by row, in Python floats."""
    weights, experts, lses = [], [], []
    for n, row in enumerate(logits.double().tolist()):
        x = [v if allowed is None or allowed[n][e] else -INF for e, v in enumerate(row)]
        key = [-INF if math.isnan(v) else v + (bias[e] if bias is not None else 0.0) for e, v in enumerate(x)]
        chosen = sorted(range(len(x)), key=lambda e: (-key[e], e))[:k]
        chosen.sort(key=lambda e: (-x[e], e))
        alive = [v for v in x if v > -INF]
        top = max(alive, default=0.0)
        lse = top + math.log(sum(math.exp(v - top) for v in alive)) if alive else -INF
        p = [math.exp(x[e] - lse) if x[e] > -INF else 0.0 for e in chosen]
        total = sum(p) if renormalize and sum(p) else 1.0
        weights.append([v / total for v in p])
        experts.append(chosen)
        lses.append(lse)
    return torch.tensor(weights).view(-1, k), torch.tensor(experts, dtype=torch.int32).view(-1, k), torch.tensor(lses)


@st.composite
def cases(draw):
    n, e = draw(st.integers(0, 6)), draw(st.integers(1, 9))
    k = draw(st.integers(1, min(e, 8)))
    values = st.sampled_from([-INF, -2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0])  # many ties
    logits = torch.tensor(draw(st.lists(st.lists(values, min_size=e, max_size=e), min_size=n, max_size=n)), dtype=torch.float64).view(n, e)
    bias = torch.tensor(draw(st.lists(st.sampled_from([-INF, -3.0, 0.0, 0.25, 2.0]), min_size=e, max_size=e)), dtype=torch.float64)
    allowed = torch.tensor(draw(st.lists(st.booleans(), min_size=n * e, max_size=n * e)), dtype=torch.bool).view(n, e)
    return logits, k, draw(st.booleans()), bias if draw(st.booleans()) else None, allowed if draw(st.booleans()) else None


@given(cases())
@settings(max_examples=150, deadline=None)
def test_route_agrees_with_the_loop(case):
    logits, k, renormalize, bias, allowed = case
    got = route(logits, k, renormalize=renormalize, selection_bias=bias, allowed=allowed)
    weights, experts, lse = naive(logits, k, renormalize, bias, allowed)
    assert torch.equal(got.experts, experts)
    torch.testing.assert_close(got.weights, weights.double())
    torch.testing.assert_close(got.lse, lse.double())
    assert all(len(set(row)) == k for row in got.experts.tolist())
    assert got.counts.dtype == torch.int32
    assert got.counts.tolist() == [(experts == e).sum().item() for e in range(logits.shape[1])]
    alive = lse > -INF
    torch.testing.assert_close(got.prob_sum.sum(), alive.sum().double())
    torch.testing.assert_close(got.z_sum, lse[alive].double().square().sum())


@given(cases())
@settings(max_examples=100, deadline=None)
def test_permutation_is_the_stable_sort_and_combine_undoes_dispatch(case):
    logits, k, *_ = case
    n, e = logits.shape
    experts = route(logits, k).experts
    moved = permute(experts, e)
    flat = experts.flatten().tolist()
    assert moved.order.tolist() == sorted(range(n * k), key=lambda pair: flat[pair])
    assert moved.inverse[moved.order].tolist() == list(range(n * k))
    assert moved.offsets.tolist() == [sum(value < expert for value in flat) for expert in range(e + 1)]
    x = torch.randn(n, 3, dtype=torch.float64)
    places = dispatch(x, moved)
    assert torch.equal(places, x[moved.order // k])
    torch.testing.assert_close(combine(places, torch.full((n, k), 1 / k, dtype=torch.float64), moved), x)


def test_combine_is_the_weighted_sum_over_the_experts_of_a_token():
    torch.manual_seed(0)
    routing = route(torch.randn(11, 5), 2, renormalize=True)
    moved = permute(routing.experts, 5)
    x, matrices = torch.randn(11, 4), torch.randn(5, 4, 3)
    bounds = moved.offsets.tolist()
    y = torch.cat([dispatch(x, moved)[bounds[e] : bounds[e + 1]] @ matrices[e] for e in range(5)])
    assert torch.equal(dispatch_product(x, matrices, moved), y)
    expected = torch.stack([sum(w * (x[n] @ matrices[e]) for w, e in zip(routing.weights[n], routing.experts[n].tolist(), strict=True)) for n in range(11)])
    torch.testing.assert_close(combine(y, routing.weights, moved), expected)


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients(renormalize, masked):
    torch.manual_seed(1)
    logits = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    allowed = torch.rand(5, 6) < 0.7 if masked else None
    if allowed is not None:
        allowed[0] = False
        allowed[1:, 0] = True

    def outputs(x):
        r = route(x, 3, renormalize=renormalize, allowed=allowed)
        return r.weights, r.prob_sum, r.z_sum

    assert torch.autograd.gradcheck(outputs, (logits,))


def test_gradient_of_dispatch_and_combine():
    torch.manual_seed(2)
    moved = permute(torch.tensor([[2, 0], [1, 2], [0, 1]], dtype=torch.int32), 3)
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    w = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: combine(dispatch(x, moved) ** 2, w, moved), (x, w))


def test_gradients_are_finite_beside_minus_infinity():
    logits = torch.tensor([[0.0, -INF, 1.0], [-INF, -INF, -INF]], requires_grad=True)
    routing = route(logits, 2, renormalize=True)
    (routing.weights.sum() + load_balance(routing) + z_loss(routing)).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1].tolist() == [0, 0, 0]


def test_nan_is_never_chosen_first_but_shows_in_the_weights():
    routing = route(torch.tensor([[float("nan"), 0.0, 1.0], [float("nan")] * 3, [0.0, 1.0, 2.0]]), 2)
    assert routing.experts.tolist() == [[2, 1], [0, 1], [2, 1]]
    assert routing.weights[:2].isnan().all()
    assert routing.lse[:2].isnan().all()
    assert torch.isfinite(routing.weights[2]).all()


def test_ties_go_to_the_smaller_id_and_zeros_of_both_signs_tie():
    assert route(torch.tensor([[0.0, -0.0, 0.0, -0.0]]), 3).experts.tolist() == [[0, 1, 2]]


def test_selection_bias_moves_the_choice_and_not_the_weight():
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    plain, moved = route(logits, 3), route(logits, 2, selection_bias=torch.tensor([-5.0, 0.0, 0.0]))
    assert moved.experts.tolist() == [[1, 2]]
    torch.testing.assert_close(moved.weights, plain.weights[:, 1:])


def test_a_bias_that_leaves_only_impossible_experts_gives_weights_of_zero():
    logits = torch.tensor([[-INF, 0.0], [float("nan"), 0.0]], requires_grad=True)
    routing = route(logits, 1, renormalize=True, selection_bias=torch.tensor([0.0, -INF]))
    assert routing.experts.tolist() == [[0], [0]]
    assert routing.weights[0].tolist() == [0]
    assert routing.weights[1].isnan().all()
    routing.weights[0].sum().backward()
    assert logits.grad[0].tolist() == [0, 0]


def test_mask_by_kind_of_token_is_the_mask_by_token():
    torch.manual_seed(3)
    logits, kinds = torch.randn(6, 4), torch.tensor([0, 1, 1, 0, 1, 0])
    by_kind = torch.tensor([[True, True, False, False], [False, False, True, True]])
    a, b = route(logits, 2, allowed=by_kind, kinds=kinds), route(logits, 2, allowed=by_kind[kinds])
    assert torch.equal(a.experts, b.experts)
    assert torch.equal(a.weights, b.weights)
    assert (a.experts[kinds == 0] < 2).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_low_precision_logits_are_computed_in_float32(dtype):
    routing = route(torch.randn(4, 5).to(dtype), 2)
    assert routing.weights.dtype == routing.lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_auxiliary_losses():
    even = route(torch.eye(4) * 9, 1)
    assert load_balance(even).item() == pytest.approx(1.0, abs=1e-6)
    assert load_balance(route(torch.tensor([[9.0, 0, 0, 0]] * 4), 1)).item() > 3.9
    x = torch.randn(7, 3)
    torch.testing.assert_close(z_loss(route(x, 1)), torch.logsumexp(x, 1).square().mean())
    empty = route(torch.zeros(0, 3), 2)
    assert load_balance(empty).item() == z_loss(empty).item() == 0
    assert combine(dispatch(torch.zeros(0, 5), permute(empty.experts, 3)), empty.weights, permute(empty.experts, 3)).shape == (0, 5)


def test_large_logits_do_not_overflow():
    routing = route(torch.tensor([[1e38, -1e38, 1e38]]), 2, renormalize=True)
    assert routing.weights.tolist() == [[0.5, 0.5]]


X = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4), 1, {}), r"\(N, E\)"),
        ((torch.zeros(4, 3, dtype=torch.int64), 1, {}), "floating-point"),
        ((X, 0, {}), "k = 0"),
        ((X, 4, {}), "between 1 and 3"),
        ((X, 2.0, {}), "k must be an int, not 2.0 of type float"),
        ((X, True, {}), "k must be an int, not True of type bool"),
        ((torch.zeros(1, 20), 9, {}), "at most 8"),
        ((torch.zeros(1, 1025), 1, {}), "1024"),
        ((torch.zeros(1, 0), 1, {}), "0 experts"),
        ((X, 1, {"selection_bias": torch.zeros(4)}), "selection_bias"),
        ((X, 1, {"selection_bias": torch.zeros(3, dtype=torch.complex64)}), "selection_bias must be real"),
        ((X, 1, {"allowed": torch.ones(4, 3)}), "bool"),
        ((X, 1, {"allowed": torch.ones(2, 3, dtype=torch.bool)}), "with kinds"),
        ((X, 1, {"kinds": torch.zeros(4, dtype=torch.int64)}), "come with allowed"),
        ((X, 1, {"allowed": torch.ones(0, 3, dtype=torch.bool), "kinds": torch.zeros(4, dtype=torch.int64)}), "with kinds"),
        ((X, 1, {"allowed": torch.ones(2, 3, dtype=torch.bool), "kinds": torch.tensor([0, 1, -1, 0])}), r"kinds must lie in \[0, 2\), but -1"),
        ((X, 1, {"allowed": torch.ones(2, 3, dtype=torch.bool), "kinds": torch.tensor([0, 1, 2, 0])}), r"kinds must lie in \[0, 2\), but 2"),
        ((X, 1, {"backend": "tritn"}), "choose from"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    logits, k, options = arguments
    with pytest.raises(ValueError, match=message):
        route(logits, k, **options)


def test_wrong_shapes_of_the_movers_are_named():
    moved = permute(torch.tensor([[0], [1]]), 2)
    with pytest.raises(ValueError, match="2 tokens"):
        dispatch(torch.zeros(3, 2), moved)
    with pytest.raises(ValueError, match="do not fit"):
        combine(torch.zeros(2, 2), torch.zeros(2, 2), moved)
    for matrices in (torch.zeros(3, 2, 4), torch.zeros(2, 2), torch.zeros(2, 2, 4, dtype=torch.float64)):
        with pytest.raises(ValueError, match="weight must be"):
            dispatch_product(torch.zeros(2, 2), matrices, moved)
    with pytest.raises(ValueError, match="x has shape"):
        dispatch_product(torch.tensor(1.0), torch.zeros(2, 2, 4), moved)
    with pytest.raises(ValueError, match="integer"):
        permute(torch.zeros(2, 1), 2)
    with pytest.raises(ValueError, match="num_experts must be an int"):
        permute(torch.zeros(2, 1, dtype=torch.int64), 2.0)
    with pytest.raises(ValueError, match="positive"):
        permute(torch.zeros(2, 1, dtype=torch.int64), 0)


@pytest.mark.parametrize(("ids", "dtype", "found"), [([[0, -1], [1, 2]], torch.int64, -1), ([[0, 3], [1, 2]], torch.int32, 3), ([[200]], torch.uint8, 200)])
def test_an_id_outside_the_experts_is_named(ids, dtype, found):
    with pytest.raises(ValueError, match=rf"experts must lie in \[0, 3\), but {found} is"):
        permute(torch.tensor(ids, dtype=dtype), 3)


def test_where_nobody_can_look_at_the_values_the_nearest_expert_gets_an_id_and_no_expert_an_unknown_kind():
    order, inverse, offsets = reference.permute(torch.tensor([[9, 0], [-1, 1]]), 2)
    assert order.tolist() == [1, 2, 0, 3]
    assert inverse.tolist() == [2, 0, 1, 3]
    assert offsets.tolist() == [0, 2, 4]
    mask = reference.rows_of(torch.tensor([[True, False], [True, True]]), torch.tensor([1, -1, 2, 0], dtype=torch.int8))
    assert mask.tolist() == [[True, True], [False, False], [False, False], [True, False]]


def test_the_product_keeps_its_type_under_autocast():
    moved = permute(torch.tensor([[0], [1]]), 2)
    x, matrices = torch.randn(2, 3), torch.randn(2, 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = dispatch_product(x, matrices, moved)
    assert torch.equal(found, dispatch_product(x, matrices, moved))


@pytest.mark.slow
def test_routing_and_model_import_with_torch_alone():
    blocked = ["polars", "pydantic", "sklearn", "safetensors", "causalroute.config", "causalroute.io"]
    code = f"""
import sys
for name in {blocked!r}: sys.modules[name] = None
import causalroute.routing, pkgutil, importlib, causalroute.model
for m in pkgutil.iter_modules(causalroute.model.__path__): importlib.import_module("causalroute.model." + m.name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}, timeout=120)
