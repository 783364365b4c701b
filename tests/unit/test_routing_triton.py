"""The Triton kernels in the interpreter, against the reference in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.routing_cases import INF, Case, assert_equal_gradient, assert_equal_routing, make, moves

from causalroute.routing import combine, dispatch, dispatch_product, permute, route

triton = pytest.importorskip("triton", reason="the kernels need the package triton")
tl = pytest.importorskip("triton.language")
launch = pytest.importorskip("causalroute.routing.kernels.launch")
steps_of = pytest.importorskip("causalroute.routing.kernels.route").steps_of
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not launch.INTERPRETED, reason="on a GPU these shapes run in tests/gpu"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy speaks up where a NaN is part of the test
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("experts", "k"), [(1, 1), (2, 1), (3, 3), (8, 2), (12, 8), (16, 4), (64, 2), (100, 5)])
def test_outputs_and_gradients_are_those_of_the_reference(experts: int, k: int, dtype: torch.dtype) -> None:
    for plain in (True, False):
        case = make(19, experts, k, dtype, plain=plain)
        assert_equal_routing(case)
        assert_equal_gradient(case)
        assert_equal_gradient(Case(torch.randn(5, experts).to(dtype), k, not plain))


@pytest.mark.parametrize(("experts", "k", "dtype"), [(1024, 8, torch.bfloat16), (1000, 8, torch.float32), (513, 1, torch.float16)])
def test_many_experts(experts: int, k: int, dtype: torch.dtype) -> None:
    assert_equal_routing(make(9, experts, k, dtype, plain=True))
    assert_equal_gradient(make(9, experts, k, dtype, ugly=False, plain=True))


def test_more_tiles_than_chunks_are_all_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "MAX_CHUNKS", 2)
    monkeypatch.setattr(launch, "router_tile", lambda *_, **__: launch.Tile(4, 4))
    assert_equal_routing(make(23, 5, 2, torch.float32))
    assert_equal_gradient(make(23, 5, 2, torch.float32))


def test_every_place_of_the_outputs_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN and -1 here: a place that a kernel forgets would show."""

    fresh = torch.Tensor.new_empty

    def poisoned(self: torch.Tensor, *size: int, dtype: torch.dtype | None = None, **options: str) -> torch.Tensor:
        if options:  # the interpreter's own
            return fresh(self, *size, dtype=dtype, **options)
        dtype = dtype or self.dtype
        shape = size[0] if len(size) == 1 and isinstance(size[0], tuple) else size
        return torch.full(shape, float("nan") if dtype.is_floating_point else -1, dtype=dtype, device=self.device)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    monkeypatch.setattr(torch, "empty_like", lambda x: poisoned(x, *x.shape))
    assert_equal_routing(make(70, 33, 3, torch.float32))
    assert_equal_gradient(make(70, 33, 3, torch.float32))
    experts = torch.tensor([[2, 0], [1, 2], [0, 1]], dtype=torch.int32)
    ours, reference = permute(experts, 3, backend="triton"), permute(experts, 3)
    assert torch.equal(ours.inverse, reference.inverse)
    x = torch.randn(3, 5)
    moved = dispatch(x, ours, backend="triton")
    assert torch.equal(moved, dispatch(x, reference))
    assert torch.isfinite(combine(moved, torch.rand(3, 2), ours, backend="triton")).all()
    assert_equal_moves(torch.rand(70, 3).argsort(1)[:, :2].int(), 20, 70)
    assert_equal_moves(torch.rand(9, 4).argsort(1)[:, :3].int(), 600, 3)


def test_infinite_logits_and_extreme_ones() -> None:
    big = torch.finfo(torch.float32).max
    logits = torch.tensor([[INF, 0.0, 1.0], [1e38, -1e38, 5e37], [big, -big, -INF], [-big, -INF, -INF], [100.0, INF, INF]])
    for renormalize in (False, True):
        assert_equal_routing(Case(logits, 2, renormalize))


def test_equal_rows_tie_to_the_smaller_id_whatever_the_type() -> None:
    for dtype in DTYPES:
        assert route(torch.tensor([[0.0, -0.0, 0.0, -0.0]]).to(dtype), 3, backend="triton").experts.tolist() == [[0, 1, 2]]


def test_no_tokens() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    found = route(logits, 2, backend="triton")
    assert found.weights.shape == found.experts.shape == (0, 2)
    assert found.counts.tolist() == [0] * 5
    (found.prob_sum.sum() + found.z_sum).backward()
    assert logits.grad is not None
    assert logits.grad.shape == (0, 5)
    moved = permute(found.experts, 5, backend="triton")
    assert moved.offsets.tolist() == [0] * 6
    assert combine(dispatch(torch.zeros(0, 3), moved, backend="triton"), found.weights, moved, backend="triton").shape == (0, 3)


def test_strides_do_not_matter() -> None:
    logits = torch.randn(6, 14)[:, ::2]
    bias = torch.randn(14)[::2]
    a, b = route(logits, 2, selection_bias=bias, backend="triton"), route(logits.contiguous(), 2, selection_bias=bias.contiguous(), backend="triton")
    assert torch.equal(a.weights, b.weights)
    assert torch.equal(a.experts, b.experts)


def strided(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x, torch.zeros_like(x)], -1)[..., 0]


@pytest.mark.parametrize("by_kind", [False, True])
def test_strides_of_masks_and_of_gradients_do_not_matter(by_kind: bool) -> None:
    case = make(9, 5, 2, torch.float32, ugly=False)
    assert case.allowed is not None
    assert case.kinds is not None
    masks = {"allowed": case.allowed, "kinds": case.kinds} if by_kind else {"allowed": case.allowed[case.kinds], "kinds": None}
    found = []
    for change in (torch.Tensor.clone, strided):
        leaf = change(case.logits).requires_grad_()
        given = {name: None if value is None else change(value) for name, value in masks.items()}
        routing = route(leaf, 2, backend="triton", **given)  # type: ignore[arg-type]
        outputs = [routing.weights, routing.lse, routing.prob_sum]
        gradients = [change(torch.arange(out.numel()).sin().view(out.shape)) for out in outputs]
        found.append([routing.experts, *outputs, *torch.autograd.grad(outputs, leaf, gradients)])
    for dense, other in zip(*found, strict=True):
        assert torch.equal(dense, other)


def test_strides_of_the_movers_do_not_matter() -> None:
    given = torch.randn(9, 6), torch.rand(9, 4).argsort(1)[:, :2], torch.rand(9, 2), torch.randn(4, 6, 3)
    dense, other = moves(*given), moves(*given, change=strided)
    assert dense.keys() == other.keys()
    for name, value in dense.items():
        assert torch.equal(value, other[name]), name


def test_an_integer_bias_beside_a_gradient() -> None:
    logits = torch.randn(6, 4, requires_grad=True)
    bias = torch.tensor([0, 5, 0, -5])
    found, expected = (route(logits, 2, selection_bias=bias, backend=backend) for backend in ("triton", "reference"))
    assert torch.equal(found.experts, expected.experts)
    found.weights.sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_a_kind_outside_the_table_is_served_by_none() -> None:
    found = route(torch.randn(3, 4), 2, allowed=torch.ones(2, 4, dtype=torch.bool), kinds=torch.tensor([0, 2, -1]), backend="triton")
    assert found.lse.isinf().tolist() == [False, True, True]
    assert found.experts[1:].tolist() == [[0, 1], [0, 1]]


def test_a_bias_that_leaves_only_impossible_experts_gives_weights_of_zero() -> None:
    logits = torch.tensor([[-INF, 0.0], [float("nan"), 0.0]])
    for dtype in DTYPES:
        case = Case(logits.to(dtype), 1, True, torch.tensor([0.0, -INF]))
        assert case.run("triton").weights[0].tolist() == [0]
        assert_equal_routing(case)
        assert_equal_gradient(case)


def test_the_mask_of_every_token_compiles_once_whatever_their_number() -> None:
    arguments = []
    for tokens in (16, 19):
        logits, allowed = torch.empty(tokens, 4, device="meta"), torch.empty(tokens, 4, dtype=torch.bool, device="meta")
        arguments.append(launch.forward(logits, 2, False, None, allowed, None)[1][0].arguments["kind_count"])
    assert arguments == [0, 0]


@triton.jit
def steps_kernel(out: tl.tensor, chunks: tl.tensor, n: tl.tensor, ROWS: tl.constexpr) -> None:
    tl.store(out, steps_of(tl.program_id(0), chunks, n, ROWS))


@pytest.mark.parametrize("tokens", [1, 64, 65, 2**31 - 65, 2**31 - 1, 2**31, 2**33])
def test_the_number_of_steps_is_right_up_to_the_end_of_32_bits(tokens: int) -> None:
    out = torch.zeros(1, dtype=torch.int64)
    steps_kernel[(1,)](out, 1000, tokens, ROWS=64)
    assert out.item() == math.ceil(math.ceil(tokens / 64) / 1000)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n, e = draw(st.integers(0, 6)), draw(st.integers(1, 9))
    values = st.sampled_from([-INF, float("nan"), -2.0, -0.0, 0.0, 0.5, 3.0])
    logits = torch.tensor(draw(st.lists(values, min_size=n * e, max_size=n * e))).view(n, e).to(draw(st.sampled_from(DTYPES)))
    bias = torch.tensor(draw(st.lists(st.sampled_from([-INF, -3.0, 0.0, 0.25]), min_size=e, max_size=e))) if draw(st.booleans()) else None
    allowed = torch.tensor(draw(st.lists(st.booleans(), min_size=n * e, max_size=n * e)), dtype=torch.bool).view(n, e) if draw(st.booleans()) else None
    return Case(logits, draw(st.integers(1, min(e, 8))), draw(st.booleans()), bias, allowed)


@given(cases())
@settings(max_examples=60, deadline=None)
def test_any_small_input(case: Case) -> None:
    assert_equal_routing(case)
    assert all(len(set(row)) == case.k for row in case.run("triton").experts.tolist())


@given(st.lists(st.integers(0, 19), max_size=60), st.integers(20, 40), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_permutation_is_the_stable_sort(ids: list[int], experts: int, k: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "SORT_BLOCK", 16)
        assert_equal_permutation(torch.tensor(ids[: len(ids) // k * k], dtype=torch.int32).view(-1, k), experts)


def assert_equal_moves(ids: torch.Tensor, width: int, hidden: int) -> None:
    """Every mover and its gradients against the reference; the last expert has no rows."""
    tokens, k = ids.shape
    experts = int(ids.max()) + 2
    given = torch.randn(tokens, width), ids, torch.rand(tokens, k), torch.randn(experts, width, hidden)
    ours, expected = moves(*given), moves(*given, backend="reference")
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


def assert_equal_permutation(ids: torch.Tensor, experts: int) -> None:
    ours, reference = permute(ids, experts, backend="triton"), permute(ids, experts, backend="reference")
    for name in ("order", "inverse", "offsets"):
        assert torch.equal(getattr(ours, name), getattr(reference, name)), name


def test_permutation_of_several_tiles_and_of_all_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_equal_permutation(torch.randint(0, 7, (700, 2)), 7)
    monkeypatch.setattr(launch, "SORT_BLOCK", 64)
    for experts, dtype in ((3, torch.int64), (1024, torch.int32)):
        assert_equal_permutation(torch.randint(0, experts, (150, 2), dtype=dtype), experts)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("width", "k"), [(1, 1), (5, 2), (600, 3)])
def test_rows_go_to_their_experts_and_back(width: int, k: int, dtype: torch.dtype) -> None:
    tokens, wide = 7, torch.float64 if dtype == torch.float64 else torch.float32
    moved = permute(torch.stack([torch.randperm(5)[:k] for _ in range(tokens)]).int(), 5)
    x, w = torch.randn(tokens, width, dtype=dtype), torch.rand(tokens, k, dtype=wide)
    results = []
    for backend in ("triton", "reference"):
        a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
        places = dispatch(a, moved, backend=backend)
        out = combine(places * 2, b, moved, backend=backend)
        (out.to(wide) * torch.arange(width, dtype=wide)).mean().backward()
        results.append((places, out, a.grad, b.grad))
    tolerance = {torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    for name, ours, expected in zip(("places", "out", "dx", "dw"), *results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance * (1 + expected.abs().sum().item()), msg=lambda text, name=name: name + text)


@pytest.mark.parametrize(
    ("dtype", "sizes"), [(torch.float32, (70, 5, 20, 3, 2)), (torch.float64, (9, 70, 6, 4, 1)), (torch.float16, (12, 33, 17, 5, 3))], ids=str
)
def test_the_product_that_gathers_is_dispatch_and_product(dtype: torch.dtype, sizes: tuple[int, ...]) -> None:
    tokens, width, hidden, experts, k = sizes
    moved = permute(torch.rand(tokens, experts - 1).argsort(1)[:, :k].int(), experts)  # the last expert has no rows
    x, w = torch.randn(tokens, width).to(dtype), torch.randn(experts, hidden, width).to(dtype).transpose(1, 2)
    results = []
    for backend in ("triton", "reference"):
        a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
        out = dispatch_product(a, b, moved, backend=backend)
        (out * torch.arange(hidden).to(dtype)).sum().div(max(out.numel(), 1)).backward()
        results.append((out, a.grad, b.grad))
    tolerance = {torch.float16: 5e-3, torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    for name, ours, expected in zip(("out", "dx", "dw"), *results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance * (1 + expected.abs().sum().item()), msg=lambda text, name=name: name + text)


def test_ids_outside_the_experts_go_to_the_nearest_and_write_nothing_outside_the_outputs() -> None:
    found = permute(torch.tensor([[9], [-1], [0], [-2000]], dtype=torch.int32), 2, backend="triton")
    assert found.order.tolist() == [1, 2, 3, 0]
    assert found.offsets.tolist() == [0, 3, 4]
