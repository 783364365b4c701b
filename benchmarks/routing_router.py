"""The router in the benchmark: who provides it, what its numbers must be, at which sizes it is timed.

Letters: N tokens, E experts, k experts per token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from benchmarks.routing_bytes import backward_bytes, forward_bytes
from benchmarks.routing_timing import Bench, Subject, name_of, own_backend, steps
from torch import Tensor

from causalroute.routing import route
from causalroute.routing.backend import Backend

Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""weights, ids, counts, sum of probabilities, sum of squared log-sum-exps"""
Router = Callable[[Tensor, int], Outputs]
Shape = tuple[int, int, int]
FLOORS = tuple((1 << 20, experts, k) for experts, k in ((8, 2), (16, 2), (64, 2), (128, 4), (256, 8), (1024, 8)))
"""one million tokens: the table of predictions in docs/routing.md"""
LARGE = ((1 << 23, 8, 2), (1 << 22, 16, 2), (1 << 20, 64, 2), (1 << 19, 128, 4))
"""128 MiB of 16-bit logits: the goals"""
SHAPES: dict[torch.dtype, tuple[Shape, ...]] = {
    torch.bfloat16: tuple(dict.fromkeys((*LARGE, *FLOORS, (4096, 64, 2)))),
    torch.float16: tuple(dict.fromkeys((*LARGE, *FLOORS))),
    torch.float32: FLOORS,
    torch.float64: FLOORS,
}
SMOKE: dict[torch.dtype, tuple[Shape, ...]] = {torch.bfloat16: ((24, 8, 2),), torch.float16: ((24, 12, 3),), torch.float32: ((24, 12, 3),)}
CHECKED = 1 << 27
"""logits that are compared, at most: beyond that the first tokens stand for all, for the reference in float64 needs ten times the memory"""


def eager(x: Tensor, k: int) -> Outputs:
    """What a model writes in plain torch."""
    x = x if x.dtype == torch.float64 else x.float()
    p = x.softmax(-1)
    weights, ids = p.topk(k)
    return weights, ids, counted(ids, x.shape[1]), p.sum(0), x.logsumexp(-1).square().sum()


def counted(ids: Tensor, experts: int) -> Tensor:
    """Tokens of every expert, without waiting for the device as bincount does, and without a crowd of atomic additions to few places as scatter_add."""
    return torch.histc(ids.flatten().float(), bins=experts, min=0, max=experts)


def compiled(compiler: Any = "inductor") -> Router:
    """`eager` through torch.compile, afresh.

    Dynamo counts compilations by the code of a function, and after eight shapes runs the rest uncompiled: so its memory is cleared, and a graph that breaks
    or a limit that is reached is an error.
    """
    torch._dynamo.reset()
    torch._functorch.config.donated_buffer = False  # else a backward pass may run once only, and cannot be timed alone
    return torch.compile(eager, dynamic=False, fullgraph=True, backend=compiler)


def ours(backend: Backend, *, renormalize: bool = False) -> Router:
    """`route` on a backend."""

    def run(x: Tensor, k: int) -> Outputs:
        found = route(x, k, renormalize=renormalize, backend=backend)
        return found.weights, found.experts, found.counts, found.prob_sum, found.z_sum

    return run


def chosen(found: Any) -> tuple[Tensor, Tensor]:
    """Weights and ids of the top-k of triton_kernels: a SparseMatrix with vals and indx, in older versions a tuple."""
    return (found.vals, found.indx) if hasattr(found, "vals") else (found[0], found[1])


def peer(x: Tensor, k: int) -> Outputs:
    """The top-k of triton_kernels, which normalizes the chosen logits alone: softmax and both sums stay with torch."""
    from triton_kernels.topk import topk

    weights, ids = chosen(topk(x, k, apply_softmax=True))
    p = x.float().softmax(-1)
    return weights.float(), ids, counted(ids, x.shape[1]), p.sum(0), x.float().logsumexp(-1).square().sum()


def providers(device: str, compiler: Any) -> dict[str, Router]:
    """All that may run here; one that cannot says why when it is called."""
    found: dict[str, Router] = {"eager torch": eager, "torch.compile": compiled(compiler), "triton_kernels": peer, "reference": ours("reference")}
    return found | ({"triton": ours("triton")} if own_backend(device) == "triton" else {})


def gradient(outputs: Outputs, leaf: Tensor) -> Tensor:
    """Of the logits, for incoming gradients that do not depend on the order of a token's choices."""
    weights, ids, _, prob_sum, z_sum = outputs
    table = torch.linspace(-1, 1, leaf.shape[1], device=leaf.device, dtype=weights.dtype)
    incoming = (table[ids.long()], torch.linspace(-0.5, 0.7, leaf.shape[1], device=leaf.device).to(prob_sum), torch.full_like(z_sum, 0.01))
    return torch.autograd.grad((weights, prob_sum, z_sum), leaf, incoming)[0].double()


def check(name: str, run: Router, x: Tensor, k: int) -> None:
    """Stops at wrong outputs or gradients. The ids of `triton` are those of the reference; others may order equal logits as they like."""
    x = x[: max(CHECKED // x.shape[1], 1)]
    leaf, wide = x.detach().requires_grad_(), x.detach().double().requires_grad_()
    got, expected = run(leaf, k), ours("reference", renormalize=name == "triton_kernels")(wide, k)
    exact = name in ("triton", "reference")
    if exact and not torch.equal(got[1].int(), expected[1]):
        raise AssertionError(f"{name}: other experts than the reference")
    values = [wide.detach().gather(1, one[1].long()).sort(1, descending=True).values for one in (got, expected)]
    close(name, "chosen logits", values[0], values[1], 0.0 if exact else 1e-3)
    theirs = name == "triton_kernels" and x.dtype.itemsize == 2  # whose weights are of the type of the logits
    close(name, "weights", got[0].sort(1, descending=True).values, expected[0], 1e-2 if theirs else 1e-5)
    close(name, "counts", got[2], expected[2], 0.0 if exact else len(x) * 1e-3)
    close(name, "prob_sum", got[3], expected[3], 1e-3)
    close(name, "z_sum", got[4], expected[4], 1e-3)
    same = (got[1].long().sort(1).values == expected[1].long().sort(1).values).all(1, keepdim=True)
    wanted = gradient(expected, wide) * same
    close(name, "gradient", gradient(got, leaf) * same, wanted, (2e-2 if x.dtype.itemsize == 2 else 1e-4) * wanted.abs().max().item())


def close(name: str, what: str, got: Tensor, wanted: Tensor, atol: float) -> None:
    """Numbers that agree to a thousandth, or to `atol`."""
    torch.testing.assert_close(got.detach().double(), wanted.detach().double(), rtol=1e-3, atol=atol, msg=lambda text: f"{name} {what}: {text}")


def router_rows(bench: Bench, shapes: dict[torch.dtype, tuple[Shape, ...]], compiler: Any = "inductor") -> None:
    """Every provider at every type and shape."""
    for dtype, sizes in shapes.items():
        for tokens, experts, k in sizes:
            x = torch.randn(tokens, experts, device=bench.device).to(dtype)
            counts = (forward_bytes(tokens, experts, k, dtype.itemsize), backward_bytes(tokens, experts, k, dtype.itemsize))
            subject = Subject("router", name_of(dtype), tokens, experts, k)
            for name, run in providers(bench.device, compiler).items():
                bench.take(subject, name, lambda x, run=run, k=k: run(x, k), (x,), counts, lambda name=name, run=run, x=x, k=k: check(name, run, x, k))


def graph_row(bench: Bench) -> None:
    """Forward and backward of 4096 tokens, replayed from a CUDA graph."""
    tokens, experts, k = 4096, 64, 2
    x, graph, stream = torch.randn(tokens, experts, device="cuda").bfloat16(), torch.cuda.CUDAGraph(), torch.cuda.Stream()
    step = steps(lambda x: ours("triton")(x, k), (x,))["both"]
    stream.wait_stream(torch.cuda.current_stream())  # the logits are made there
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    subject = Subject("graph", "bfloat16", tokens, experts, k)
    with bench.sheltered(subject, "triton"):
        with torch.cuda.graph(graph):
            step()
        count = forward_bytes(tokens, experts, k, 2) + backward_bytes(tokens, experts, k, 2)
        bench.rows.append(bench.measured(subject, "triton", "both", graph.replay, count))
