"""Mixture layer on a CPU: sorted by expert with the reference of the router, against a loop that masks the tokens of each expert.

    OMP_NUM_THREADS=1 python -m benchmarks.routing_cpu

Both compute out_n = sum_j w_nj gelu(x_n A_e) B_e over the k experts e of token n, forward and backward, in float32; outputs and gradients are compared in
the run. The ways take turns, so that load on the machine hits both; the best of the rounds counts.

Letters: N tokens, E experts, k experts per token, D width, H expert width.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from causalroute.routing import combine, dispatch, permute, route

Layer = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
SHAPES = ((4096, 4, 2), (4096, 8, 2), (4096, 16, 2), (4096, 64, 2), (256, 8, 2))


def sorted_layer(x: Tensor, logits: Tensor, a: Tensor, b: Tensor, k: int) -> Tensor:
    """The rows of one expert lie beside each other."""
    found = route(logits, k)
    moved = permute(found.experts, a.shape[0])
    ends = moved.offsets[1:].int()
    rows = functional.gelu(functional.grouped_mm(dispatch(x, moved), a, offs=ends))
    return combine(functional.grouped_mm(rows, b, offs=ends), found.weights, moved)


def looped_layer(x: Tensor, logits: Tensor, a: Tensor, b: Tensor, k: int) -> Tensor:
    """Finds the tokens of every expert by comparing all ids, and adds their results where they belong."""
    weights, ids = logits.softmax(-1).topk(k)
    out = torch.zeros_like(x)
    for e in range(a.shape[0]):
        token, choice = (ids == e).nonzero(as_tuple=True)
        out = out.index_add(0, token, weights[token, choice][:, None] * (functional.gelu(x[token] @ a[e]) @ b[e]))
    return out


def step(layer: Layer, tensors: list[Tensor], k: int) -> tuple[Tensor, ...]:
    """Output, and gradients of all inputs."""
    leaves = [value.detach().requires_grad_() for value in tensors]
    out = layer(leaves[0], leaves[1], leaves[2], leaves[3], k)
    return out, *torch.autograd.grad(out.square().sum(), leaves)


def compare(tokens: int, experts: int, k: int, width: int, hidden: int, rounds: int) -> tuple[float, float]:
    """Milliseconds of both ways."""
    shapes = ((tokens, width), (tokens, experts), (experts, width, hidden), (experts, hidden, width))
    tensors = [torch.randn(shape) / shape[-1] ** 0.5 for shape in shapes]
    layers: tuple[Layer, Layer] = (sorted_layer, looped_layer)
    for got, wanted in zip(*(step(layer, tensors, k) for layer in layers), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for way, layer in enumerate(layers):
            start = time.perf_counter()
            step(layer, tensors, k)
            best[way] = min(best[way], (time.perf_counter() - start) * 1e3)
    return best[0], best[1]


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.manual_seed(0)
    print("| N | E, k | sorted, ms | loop, ms | loop / sorted |\n|---|---|---|---|---|")
    for tokens, experts, k in SHAPES:
        ours, loop = compare(tokens, experts, k, options.width, options.hidden, options.rounds)
        print(f"| {tokens} | {experts}, {k} | {ours:.2f} | {loop:.2f} | {loop / ours:.2f} |")


if __name__ == "__main__":
    main()
