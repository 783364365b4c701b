"""A whole step of a mixture on a CUDA device, with everything the router can be told, and tensors beyond 2^31 values."""

from __future__ import annotations

import pytest
import torch

from tests.gpu import device_cases as cases

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def needs(gibibytes: int) -> None:
    if torch.cuda.get_device_properties(0).total_memory < gibibytes * 2**30:
        pytest.skip(f"needs {gibibytes} GiB of device memory")


@pytest.mark.parametrize("by_token", [False, True])
def test_fifty_runs_agree_to_the_bit(by_token: bool) -> None:
    cases.assert_runs_agree(50, cases.arguments(50_003, 64, 96, 48, torch.bfloat16, "cuda", by_token=by_token))


@pytest.mark.parametrize("by_token", [False, True])
def test_a_step_is_captured_in_a_cuda_graph(by_token: bool) -> None:
    case, x, matrices = cases.arguments(4096, 64, 96, 48, torch.bfloat16, "cuda", by_token=by_token)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())  # what goes in is made there
    with torch.cuda.stream(stream):
        for _ in range(3):
            cases.mixture(case, x, matrices)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = cases.mixture(case, x, matrices)
    for value in (case.logits, x, matrices):
        value.copy_(torch.randn_like(value))
    graph.replay()
    for replayed, expected in zip(captured, cases.mixture(case, x, matrices), strict=True):
        assert torch.equal(replayed, expected)


@pytest.mark.parametrize("by_token", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_strides_do_not_matter(dtype: torch.dtype, by_token: bool) -> None:
    cases.assert_strides_do_not_matter(cases.arguments(1003, 12, 40, 24, dtype, "cuda", by_token=by_token))


@pytest.mark.parametrize(("width", "hidden"), [(32, 16), (100, 70), (256, 128)])
def test_the_product_in_float64(width: int, hidden: int) -> None:
    cases.assert_product_of_float64(1001, width, hidden, "cuda")


def test_a_mask_by_token_beyond_two_to_the_31_values() -> None:
    needs(24)
    cases.assert_far_mask(2**31 // 1024 + 4097, 1024, "cuda")


def test_moves_beyond_two_to_the_31_values() -> None:
    needs(40)
    cases.assert_far_moves(2**31 // (2 * 4096) + 4097, 4096, "cuda")


def test_a_permutation_of_more_than_two_to_the_31_pairs() -> None:
    needs(80)
    cases.assert_far_permutation(2**31 + 4096, 4, "cuda")
