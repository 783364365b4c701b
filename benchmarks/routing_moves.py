"""Permutation, dispatch, combine and a whole layer of experts in the benchmark: this package against what torch and scattermoe offer for the same result.

    layer   out_n = sum_j w_nj gelu(x_n A_e) B_e          over the k experts e of token n; the permutation is given

Up to a width of FUSED the first product of this package gathers its rows itself; beyond, rows are moved first and torch multiplies.

Letters: N tokens, E experts, k experts per token, P = N k pairs, D width, H expert width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import torch
from benchmarks.routing_bytes import combine_bytes, dispatch_bytes, layer_bytes, permute_bytes
from benchmarks.routing_timing import Bench, Run, Subject, leaves_of, name_of, own_backend, tensors_of
from torch import Tensor
from torch.nn.functional import gelu, grouped_mm

from causalroute.routing import Permutation, combine, dispatch, dispatch_product, permute
from causalroute.routing.backend import Backend

FUSED = 512
PAIRS = 2_000_000
SHAPES = ((PAIRS, 16, 256), (PAIRS, 16, 512), (PAIRS, 128, 1024), (PAIRS // 2, 16, 2048))
"""(P, E, D), k = 2 and H = D / 2"""
SMOKE = ((32, 8, 16), (32, 8, FUSED + 16))


@dataclass(frozen=True)
class Case:
    """What is moved."""

    moved: Permutation
    ids: Tensor
    """(N, k)"""
    x: Tensor
    """(N, D)"""
    weights: Tensor
    """(N, k) float32"""
    a: Tensor
    """(E, D, H)"""
    b: Tensor
    """(E, H, D)"""
    backend: Backend

    @cached_property
    def token(self) -> Tensor:
        """(P,) the token at every place; made once, outside of what is timed, like all that follows from the permutation."""
        return self.moved.order // self.ids.shape[1]

    @cached_property
    def sorted_ids(self) -> Tensor:
        """(P,) the expert at every place."""
        return self.ids.flatten()[self.moved.order]

    @cached_property
    def ends(self) -> Tensor:
        """(E,) int32, as grouped_mm wants them."""
        return self.moved.offsets[1:].int()


def make(device: str, pairs: int, experts: int, width: int, dtype: torch.dtype) -> Case:
    """Random tokens with two random experts each."""
    tokens, hidden = pairs // 2, width // 2
    ids = torch.rand(tokens, experts, device=device).argsort(1)[:, :2].int()
    a, b = (torch.randn(experts, *shape, device=device).div(shape[0] ** 0.5).to(dtype) for shape in ((width, hidden), (hidden, width)))
    x, weights, backend = torch.randn(tokens, width, device=device).to(dtype), torch.rand(tokens, 2, device=device), own_backend(device)
    return Case(permute(ids, experts, backend=backend), ids, x, weights, a, b, backend)


def own_layer(case: Case, x: Tensor, weights: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The layer by this package."""
    if x.shape[1] <= FUSED:
        inner = dispatch_product(x, a, case.moved, backend=case.backend)
    else:
        inner = grouped_mm(dispatch(x, case.moved, backend=case.backend), a, offs=case.ends)
    return combine(grouped_mm(gelu(inner), b, offs=case.ends), weights, case.moved, backend=case.backend)


def plain_layer(case: Case, x: Tensor, weights: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The layer by torch."""
    rows = grouped_mm(gelu(grouped_mm(x.index_select(0, case.token), a, offs=case.ends)), b, offs=case.ends)
    return plain_combine(case, rows, weights)


def plain_combine(case: Case, rows: Tensor, weights: Tensor) -> Tensor:
    """Weighted rows, added where their tokens lie."""
    scaled = rows * weights.flatten()[case.moved.order, None].to(rows.dtype)
    return torch.zeros(len(weights), rows.shape[1], dtype=rows.dtype, device=rows.device).index_add_(0, case.token, scaled)


def scatter_layer(case: Case, x: Tensor, weights: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The layer by scattermoe, whose products gather and scatter."""
    from scattermoe.parallel_experts import parallel_linear

    sort = (case.sorted_ids, case.moved.order, case.moved.offsets[1:])
    inner = gelu(parallel_linear(x, a, case.ids.shape[1], *sort, grouped_out=True))
    return parallel_linear(inner, b, 1, *sort, gates=weights.to(x.dtype), grouped_in=True)


def looped_layer(case: Case, x: Tensor, weights: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The layer one expert after another: what all others must agree with."""
    rows = dispatch(x, case.moved, backend="reference").split(case.moved.offsets.diff().tolist())
    y = torch.cat([gelu(row @ first) @ second for row, first, second in zip(rows, a, b, strict=True)])
    return combine(y, weights, case.moved, backend="reference")


def agree(run: Run, expected: Run, inputs: tuple[Tensor, ...]) -> None:
    """Outputs and gradients as far from those in float32 as the type makes them, by their norms."""
    bound = 3e-2 if inputs[0].dtype.itemsize == 2 else 1e-4
    wide = tuple(value.float() for value in inputs)
    for number, (got, wanted) in enumerate(zip(results(run, inputs), results(expected, wide), strict=True)):
        distance = ((got.float() - wanted).norm() / wanted.norm().clamp_min(1e-9)).item()
        if not distance <= bound:
            raise AssertionError(f"{'output' if number == 0 else f'gradient {number}'}: relative distance {distance:.1e}, at most {bound:.0e} is right")


def results(run: Run, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The output, and the gradient of every input for one fixed incoming gradient."""
    leaves = leaves_of(inputs)
    (out,) = tensors_of(run(*leaves))
    incoming = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, incoming)]


def check_order(case: Case, run: Run) -> None:
    """The stable sort, to the bit."""
    order, ends = tensors_of(run())
    flat = case.ids.flatten().long()
    wanted = flat.sort(stable=True).indices
    if not (torch.equal(order, wanted) and torch.equal(ends, flat.bincount(minlength=len(case.a)).cumsum(0))):
        raise AssertionError("not the stable sort")
    if not torch.equal(case.moved.inverse[wanted], torch.arange(len(flat), device=flat.device)):
        raise AssertionError("not the inverse of the stable sort")


def permute_rows(bench: Bench, case: Case, subject: Subject) -> None:
    """The sort, whose results are integers: there is no backward pass."""
    experts, flat = len(case.a), case.ids.flatten()

    def own() -> tuple[Tensor, Tensor]:
        moved = permute(case.ids, experts, backend=case.backend)
        return moved.order, moved.offsets[1:]

    def plain() -> tuple[Tensor, Tensor]:
        return flat.sort(stable=True).indices, flat.bincount(minlength=experts).cumsum(0)

    for name, run in ((case.backend, own), ("sort + bincount", plain)):
        bench.take(subject, name, run, (), (permute_bytes(len(flat), experts),), partial(check_order, case, run))


def moving_rows(bench: Bench, pairs: int, experts: int, width: int, dtype: torch.dtype) -> None:
    """All of it at one size."""
    case, hidden = make(bench.device, pairs, experts, width, dtype), width // 2
    rows, b = dispatch(case.x, case.moved, backend=case.backend), dtype.itemsize
    subject = partial(Subject, dtype=name_of(dtype), tokens=pairs // 2, experts=experts, k=2, width=width)
    permute_rows(bench, case, subject("permute"))
    layer = (case.x, case.weights, case.a, case.b)
    work: dict[str, tuple[dict[str, Run], tuple[Tensor, ...], tuple[int, int]]] = {
        "dispatch": (
            {case.backend: lambda x: dispatch(x, case.moved, backend=case.backend), "index_select": lambda x: x.index_select(0, case.token)},
            (case.x,),
            dispatch_bytes(pairs, 2, width, b),
        ),
        "combine": (
            {case.backend: lambda y, w: combine(y, w, case.moved, backend=case.backend), "index_add": partial(plain_combine, case)},
            (rows, case.weights),
            combine_bytes(pairs, 2, width, b),
        ),
        "layer": (
            {case.backend: partial(own_layer, case), "plain torch": partial(plain_layer, case), "scattermoe": partial(scatter_layer, case)},
            layer,
            layer_bytes(pairs, 2, width, hidden, experts, b, fused=width <= FUSED),
        ),
    }
    expected: dict[str, Run] = {
        "dispatch": lambda x: dispatch(x, case.moved, backend="reference"),
        "combine": lambda y, w: combine(y, w, case.moved, backend="reference"),
        "layer": partial(looped_layer, case),
    }
    for what, (found, inputs, counts) in work.items():
        for name, run in found.items():
            bench.take(subject(what), name, run, inputs, counts, partial(agree, run, expected[what], inputs))
