"""The routing kernels on a CUDA device: the numbers of the reference, no races, CUDA graphs, rows beyond 2^31 values."""

from __future__ import annotations

import pytest
import torch

from causalroute.routing import combine, dispatch, dispatch_product, permute, route
from tests.unit.routing_cases import assert_equal_gradient, assert_equal_routing, make

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("experts", "k"), [(1, 1), (3, 3), (8, 2), (12, 8), (64, 2), (100, 5), (128, 4), (256, 8), (1000, 8), (1024, 1)])
def test_outputs_and_gradients_are_those_of_the_reference(experts: int, k: int, dtype: torch.dtype) -> None:
    for tokens in (1, 37, 5003):
        for plain in (True, False):
            assert_equal_routing(make(tokens, experts, k, dtype, "cuda", plain=plain), tolerance=1e-5 if tokens < 5003 else 1e-3)
            assert_equal_gradient(make(tokens, experts, k, dtype, "cuda", plain=plain))


def test_gradients_in_float64() -> None:
    logits = torch.randn(4, 6, dtype=torch.float64, device="cuda", requires_grad=True)

    def outputs(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = route(x, 2, renormalize=True)
        return found.weights, found.prob_sum, found.z_sum, found.lse

    assert torch.autograd.gradcheck(outputs, (logits,))


def test_fifty_runs_agree_to_the_bit() -> None:
    case = make(100_003, 64, 2, torch.bfloat16, "cuda", ugly=False, plain=True)
    x = torch.randn(100_003, 96, device="cuda", dtype=torch.bfloat16)
    first: list[torch.Tensor] | None = None
    for _ in range(50):
        logits, rows = case.logits.clone().requires_grad_(), x.clone().requires_grad_()
        found = case.run("auto", logits)
        moved = permute(found.experts, 64)
        out = combine(dispatch(rows, moved), found.weights, moved)
        (out.float().square().sum() + found.prob_sum.square().sum() + found.z_sum).backward()
        results = [*vars(found).values(), moved.order, moved.inverse, moved.offsets, out, logits.grad, rows.grad]
        first = first or [value.detach().clone() for value in results]
        assert all(torch.equal(a, b) for a, b in zip(first, results, strict=True))


@pytest.mark.parametrize(("pairs", "experts"), [(1, 1), (1023, 3), (200_001, 64), (2_000_000, 1024)])
def test_permutation_is_the_stable_sort(pairs: int, experts: int) -> None:
    ids = torch.randint(0, experts, (pairs, 1), device="cuda", dtype=torch.int32)
    moved, (_, order) = permute(ids, experts), torch.sort(ids.flatten(), stable=True)
    assert torch.equal(moved.order, order)
    assert torch.equal(moved.inverse[order], torch.arange(pairs, device="cuda"))
    assert torch.equal(moved.offsets[1:], ids.flatten().bincount(minlength=experts).cumsum(0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("width", "k"), [(1, 1), (96, 2), (1000, 3), (4096, 8)])
def test_moves_are_those_of_the_reference(width: int, k: int, dtype: torch.dtype) -> None:
    tokens, wide = 501, torch.float64 if dtype == torch.float64 else torch.float32
    moved = permute(torch.rand(tokens, 16, device="cuda").argsort(1)[:, :k].int(), 16)
    x, w = torch.randn(tokens, width, dtype=dtype, device="cuda"), torch.rand(tokens, k, dtype=wide, device="cuda")
    results = []
    for backend in ("triton", "reference"):
        a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
        out = combine(dispatch(a, moved, backend=backend), b, moved, backend=backend)
        out.to(wide).square().mean().backward()
        results.append((out, a.grad, b.grad))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=3e-2 if dtype.itemsize == 2 else 1e-4, atol=1e-3 * (1 + expected.abs().max().item()))


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@pytest.mark.parametrize(("width", "hidden"), [(32, 16), (100, 70), (512, 256)])
def test_the_product_that_gathers_is_dispatch_and_product(width: int, hidden: int, dtype: torch.dtype) -> None:
    moved = permute(torch.rand(1001, 16, device="cuda").argsort(1)[:, :2].int(), 17)
    x, w = torch.randn(1001, width, device="cuda").to(dtype), (torch.randn(17, width, hidden, device="cuda") / width**0.5).to(dtype)
    results = []
    for backend in ("triton", "reference"):
        a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
        out = dispatch_product(a, b, moved, backend=backend)
        out.float().square().mean().backward()
        results.append((out, a.grad, b.grad))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=3e-2, atol=2e-2 * expected.abs().max().item() if dtype.itemsize == 2 else 1e-3)


def test_a_step_is_captured_in_a_cuda_graph() -> None:
    logits = torch.randn(4096, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    def step() -> torch.Tensor:
        logits.grad = None
        found = route(logits, 2)
        moved = permute(found.experts, 64)
        out = combine(dispatch(logits, moved), found.weights, moved)
        (out.sum() + found.prob_sum.square().sum() + found.z_sum).backward()
        return out

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())  # the logits are made there
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    with torch.no_grad():
        logits.copy_(torch.randn_like(logits))
    graph.replay()
    replayed, gradient = out.clone(), logits.grad.clone()
    expected = step()
    assert torch.equal(replayed, expected)
    assert torch.equal(gradient, logits.grad)


def test_rows_beyond_two_to_the_31_values() -> None:
    tokens, experts = 2**31 // 1024 + 4097, 1024
    if torch.cuda.get_device_properties(0).total_memory < 24 * 2**30:
        pytest.skip("needs 24 GiB of device memory")
    logits = torch.zeros(tokens, experts, device="cuda", dtype=torch.bfloat16)
    logits[-1, 7] = 5.0
    logits.requires_grad_()
    found = route(logits, 2)
    assert found.experts[-1].tolist() == [7, 0]
    assert found.counts[[0, 1, 7]].tolist() == [tokens, tokens - 1, 1]
    found.weights[-1, 0].backward()
    tail = logits.detach()[-1:].clone().requires_grad_()
    route(tail, 2).weights[0, 0].backward()
    assert torch.equal(logits.grad[-1:], tail.grad)
    assert logits.grad[:-1].count_nonzero() == 0


def test_extra_memory_stays_within_the_outputs_and_a_mebibyte() -> None:
    tokens, k = 1 << 20, 2
    logits = torch.randn(tokens, 64, device="cuda", dtype=torch.bfloat16)
    route(logits, k)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_stats()["requested_bytes.all.current"]  # not "allocated": blocks are up to a mebibyte larger than what was asked for
    found = route(logits, k)
    assert torch.cuda.memory_stats()["requested_bytes.all.peak"] - before <= (8 * k + 4) * tokens + 2**20
    assert found.weights.shape == (tokens, k)


def test_tensors_on_two_devices_are_named() -> None:
    with pytest.raises(ValueError, match="selection_bias is on cpu"):
        route(torch.randn(4, 3, device="cuda"), 1, selection_bias=torch.zeros(3))
