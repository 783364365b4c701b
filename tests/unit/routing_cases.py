"""Inputs of the router and the comparison of its backends, shared by the tests on the CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from causalroute.routing import Routing, combine, dispatch, dispatch_product, permute, route

INF = float("inf")
Named = dict[str, Tensor]
ROUND = {torch.bfloat16: 2**-7, torch.float16: 2**-10, torch.float32: 2e-5, torch.float64: 1e-9}
"""relative rounding of a gradient that is stored in the type (the interpreter truncates)"""


@dataclass(frozen=True)
class Case:
    """Arguments of one call."""

    logits: Tensor
    k: int
    renormalize: bool = False
    bias: Tensor | None = None
    allowed: Tensor | None = None
    kinds: Tensor | None = None

    def run(self, backend: str, logits: Tensor | None = None) -> Routing:
        options = {"renormalize": self.renormalize, "selection_bias": self.bias, "allowed": self.allowed, "kinds": self.kinds}
        return route(self.logits if logits is None else logits, self.k, backend=backend, **options)  # type: ignore[arg-type]


def make(tokens: int, experts: int, k: int, dtype: torch.dtype, device: str = "cpu", *, ugly: bool = True, plain: bool = False, seed: int = 0) -> Case:
    """Random logits with many ties; `ugly` adds rows of -inf and NaN; without `plain`, a bias, a mask by kind and renormalized weights."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(tokens, experts, generator=generator).mul(4).round().div(2).to(dtype)
    if ugly and tokens > 8:
        logits[2] = -INF
        logits[3, : max(experts // 2, 1)] = -INF
        logits[5, 0] = float("nan")
        logits[7] = -0.0
    if plain:
        return Case(logits.to(device), k)
    bias = torch.randn(experts, generator=generator).to(device)
    allowed, kinds = torch.rand(3, experts, generator=generator) < 0.7, torch.randint(0, 3, (tokens,), generator=generator)
    return Case(logits.to(device), k, True, bias, allowed.to(device), kinds.to(device))


def assert_equal_routing(case: Case, tolerance: float = 1e-5) -> None:
    """Outputs of the Triton backend against the reference in float64; ids and counts to the bit."""
    got, expected = case.run("triton"), case.run("reference", case.logits.double())
    assert torch.equal(got.experts, expected.experts)
    assert torch.equal(got.counts, expected.counts)
    for name in ("weights", "lse", "prob_sum", "z_sum"):
        found, wanted = getattr(got, name), getattr(expected, name)
        assert found.dtype == (torch.float64 if case.logits.dtype == torch.float64 else torch.float32), name
        torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}")


def gradient(case: Case, backend: str, logits: Tensor) -> Tensor:
    """Of a sum with fixed random factors over every differentiable output, rows with a NaN left out."""
    generator = torch.Generator().manual_seed(1)
    leaf = logits.detach().clone().requires_grad_()
    found = case.run(backend, leaf)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(logits.device)

    good = found.lse.isfinite()
    loss = (found.weights[good].double() * random(*found.weights.shape)[good]).sum() + (found.lse[good].double() * random(len(good))[good]).sum()
    if good.any() and not found.z_sum.isnan():
        loss = loss + (found.prob_sum.double() * random(len(found.prob_sum))).sum() + 0.3 * found.z_sum.double()
    loss.backward()
    assert leaf.grad is not None
    return torch.where(found.lse.isnan()[:, None], 0.0, leaf.grad.double())


def assert_equal_gradient(case: Case) -> None:
    """Of the logits, against the reference in float64."""
    tolerance = ROUND[case.logits.dtype]
    torch.testing.assert_close(gradient(case, "triton", case.logits), gradient(case, "reference", case.logits.double()), rtol=2 * tolerance, atol=2 * tolerance)


def moves(x: Tensor, experts: Tensor, weights: Tensor, matrices: Tensor, backend: str = "triton", change: Callable[[Tensor], Tensor] = Tensor.clone) -> Named:
    """Outputs and gradients of every mover by name; each tensor that goes in, the gradients of the outputs too, passes through `change` first."""
    leaves = [change(value).requires_grad_() for value in (x, weights, matrices)]
    moved = permute(change(experts), len(matrices), backend=backend)  # type: ignore[arg-type]
    places = dispatch(leaves[0], moved, backend=backend)  # type: ignore[arg-type]
    y = change(places.detach() * 2).requires_grad_()
    outputs = {
        "dispatch": places,
        "product": dispatch_product(leaves[0], leaves[2], moved, backend=backend),  # type: ignore[arg-type]
        "combine": combine(y, leaves[1], moved, backend=backend),  # type: ignore[arg-type]
    }
    found = {"order": moved.order, "inverse": moved.inverse, "offsets": moved.offsets, **outputs}
    for name, out in outputs.items():
        factors = torch.arange(out.numel(), dtype=out.dtype, device=out.device).sin().view(out.shape)
        gradients = torch.autograd.grad(out, [*leaves, y], change(factors), allow_unused=True)
        found |= {f"d{leaf} of {name}": value for leaf, value in zip(("x", "weights", "matrices", "y"), gradients, strict=True) if value is not None}
    return found
