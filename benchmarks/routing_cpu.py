"""Mixture layers on a CPU: sorted by expert with the reference of the router, against a loop that masks the tokens of each expert.

    OMP_NUM_THREADS=1 python -m benchmarks.routing_cpu

    model   causalroute.model.experts.Experts.sparse, low-rank experts on one trunk: sum_j w_j W (h + B_e gelu(A_e h))
    layer   out_n = sum_j w_nj gelu(x_n A_e) B_e, what a transformer would hold, with torch.nn.functional.grouped_mm

Both ways compute the same, forward and backward, in float32; outputs and gradients are compared in the run. The ways take turns, so that load on the machine
hits both; the best of the rounds counts.

Letters: N tokens, E experts, k experts per token, D width, H hidden width, R rank, C classes.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from causalroute.model.experts import Experts
from causalroute.routing import combine, dispatch, permute, route

Layer = Callable[[Sequence[Tensor], int], Tensor]
SHAPES = ((4096, 4, 2), (4096, 8, 2), (4096, 16, 2), (4096, 64, 2), (256, 8, 2))
MODEL_SHAPES = tuple((tokens, experts, 2) for tokens in (256, 4096) for experts in (4, 16, 64))


def sorted_layer(tensors: Sequence[Tensor], k: int) -> Tensor:
    """The rows of one expert lie beside each other."""
    x, logits, a, b = tensors
    found = route(logits, k)
    moved = permute(found.experts, a.shape[0])
    ends = moved.offsets[1:].int()
    rows = functional.gelu(functional.grouped_mm(dispatch(x, moved), a, offs=ends))
    return combine(functional.grouped_mm(rows, b, offs=ends), found.weights, moved)


def looped_layer(tensors: Sequence[Tensor], k: int) -> Tensor:
    """Finds the tokens of every expert by comparing all ids, and adds their results where they belong."""
    x, logits, a, b = tensors
    weights, ids = logits.softmax(-1).topk(k)
    return added(x, weights, ids, lambda e, rows: functional.gelu(rows @ a[e]) @ b[e], len(a), x.shape[1])


def added(x: Tensor, weights: Tensor, ids: Tensor, expert: Callable[[int, Tensor], Tensor], experts: int, width: int) -> Tensor:
    """Weighted results of all experts, one after the other."""
    out = x.new_zeros(len(x), width)
    for e in range(experts):
        token, choice = (ids == e).nonzero(as_tuple=True)
        out = out.index_add(0, token, weights[token, choice][:, None] * expert(e, x[token]))
    return out


@functools.cache
def bare(experts: int, rank: int, hidden: int, classes: int) -> Experts:
    """The model's experts without parameters, made once: plain tensors take their places, which are leaves of the caller."""
    found = Experts(hidden, rank, experts, classes, torch.Generator())
    del found.down, found.up, found.head.weight, found.head.bias
    return found


def sparse_model(tensors: Sequence[Tensor], k: int) -> Tensor:
    """What trains."""
    h, logits, down, up, head, bias = tensors
    found = bare(*down.shape, len(head))
    found.down, found.up, found.head.weight, found.head.bias = down, up, head, bias
    return found.sparse(h, route(logits, k))


def looped_model(tensors: Sequence[Tensor], k: int) -> Tensor:
    """The same, expert by expert."""
    h, logits, down, up, head, bias = tensors
    weights, ids = logits.softmax(-1).topk(k)
    trunk = functional.linear(h, head, bias) * weights.sum(1, keepdim=True)
    return trunk + added(h, weights, ids, lambda e, rows: functional.gelu(rows @ down[e].T) @ up[e] @ head.T, len(down), len(head))


def step(layer: Layer, tensors: Sequence[Tensor], k: int) -> tuple[Tensor, ...]:
    """Output, and gradients of all inputs."""
    leaves = [value.detach().requires_grad_() for value in tensors]
    out = layer(leaves, k)
    return out, *torch.autograd.grad(out.square().sum(), leaves)


def compare(layers: tuple[Layer, Layer], shapes: Sequence[tuple[int, ...]], k: int, rounds: int) -> tuple[float, float]:
    """Milliseconds of both ways."""
    tensors = [torch.randn(shape) / shape[-1] ** 0.5 for shape in shapes]
    for got, wanted in zip(*(step(layer, tensors, k) for layer in layers), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for way, layer in enumerate(layers):
            start = time.perf_counter()
            step(layer, tensors, k)
            best[way] = min(best[way], (time.perf_counter() - start) * 1e3)
    return best[0], best[1]


def layer_shapes(tokens: int, experts: int, width: int, hidden: int) -> tuple[tuple[int, ...], ...]:
    """x, logits, A, B."""
    return (tokens, width), (tokens, experts), (experts, width, hidden), (experts, hidden, width)


def model_shapes(tokens: int, experts: int, hidden: int, rank: int, classes: int = 2) -> tuple[tuple[int, ...], ...]:
    """h, logits, A, B, W, its bias."""
    return (tokens, hidden), (tokens, experts), (experts, rank, hidden), (experts, rank, hidden), (classes, hidden), (classes,)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Two Markdown tables."""
    yield "model, H = 256, R = 8\n\n| N | E, k | Experts.sparse, ms | loop, ms | loop / sparse |\n|---|---|---|---|---|"
    for tokens, experts, k in MODEL_SHAPES:
        ours, loop = compare((sparse_model, looped_model), model_shapes(tokens, experts, 256, 8), k, options.rounds)
        yield f"| {tokens} | {experts}, {k} | {ours:.2f} | {loop:.2f} | {loop / ours:.2f} |"
    yield f"\nlayer, D = {options.width}, H = {options.hidden}\n\n| N | E, k | sorted, ms | loop, ms | loop / sorted |\n|---|---|---|---|---|"
    for tokens, experts, k in SHAPES:
        ours, loop = compare((sorted_layer, looped_layer), layer_shapes(tokens, experts, options.width, options.hidden), k, options.rounds)
        yield f"| {tokens} | {experts}, {k} | {ours:.2f} | {loop:.2f} | {loop / ours:.2f} |"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.manual_seed(0)
    for line in lines(options):
        print(line)


if __name__ == "__main__":
    main()
