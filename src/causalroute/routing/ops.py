"""The Triton kernels as operators of torch: `torch.ops.causalroute.*`, each with a function that tells shapes to the compiler, without gradients.

Importing this module needs Triton. Gradients are attached outside, in `autograd`: an operator that carries its own costs several times the host time of
a call. On CPU tensors the operators work only in Triton's interpreter, which is for tests.

Letters: N tokens, E experts, k experts per token, D width, H expert width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from causalroute.routing.kernels import launch, move

LIBRARY = torch.library.Library("causalroute", "DEF")
KEYS = ("CUDA", "CPU") if launch.INTERPRETED else ("CUDA",)
Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]


def route(logits: Tensor, k: int, renormalize: bool, bias: Tensor | None, allowed: Tensor | None, kinds: Tensor | None) -> Six:
    """The fields of `Routing` in order. Contiguous tensors on one device; `kinds` (N,) picks rows of `allowed`."""
    if logits.shape[0] == 0:
        return tuple(value.zero_() for value in route_shapes(logits, k, renormalize, bias, allowed, kinds))  # type: ignore[return-value]
    out, launches = launch.forward(logits, k, renormalize, bias, allowed, kinds)
    launch.run_all(launches)
    return out  # type: ignore[return-value]


def route_shapes(logits: Tensor, k: int, renormalize: bool, bias: Tensor | None, allowed: Tensor | None, kinds: Tensor | None) -> Six:
    """Outputs of `route`, not filled in."""
    (tokens, experts), acc, new = logits.shape, launch.wide(logits.dtype), logits.new_empty
    choice = new(tokens, k, dtype=acc), new(tokens, k, dtype=torch.int32), new(tokens, dtype=acc)
    return *choice, new(experts, dtype=torch.int32), new(experts, dtype=acc), new((), dtype=acc)


def route_backward(
    logits: Tensor,
    lse: Tensor,
    experts: Tensor,
    weights: Tensor | None,
    allowed: Tensor | None,
    kinds: Tensor | None,
    dweights: Tensor | None,
    dlse: Tensor | None,
    dprob_sum: Tensor | None,
    dz_sum: Tensor | None,
) -> Tensor:
    """Gradient of the logits; `weights` is given after renormalization, a gradient that is None is zero."""
    gradients = {"dweights": dweights, "dlse": dlse, "dprob_sum": dprob_sum, "dz_sum": dz_sum}
    dlogits, launches = launch.backward(logits, lse, experts, weights, allowed, kinds, gradients)
    if logits.shape[0]:
        launch.run_all(launches)
    return dlogits


def permute(experts: Tensor, num_experts: int) -> Three:
    """Order, inverse and offsets of the stable sort by expert."""
    if experts.numel() == 0:
        return tuple(value.zero_() for value in permute_shapes(experts, num_experts))  # type: ignore[return-value]
    out, launches = launch.permutation(experts, num_experts)
    launch.run_all(launches)
    return out  # type: ignore[return-value]


def permute_shapes(experts: Tensor, num_experts: int) -> Three:
    """Outputs of `permute`, not filled in."""
    sizes = (experts.numel(), experts.numel(), num_experts + 1)
    return tuple(experts.new_empty(size, dtype=torch.int64) for size in sizes)  # type: ignore[return-value]


def spread(x: Tensor, inverse: Tensor, weights: Tensor | None, k: int) -> Tensor:
    """(N, D) -> (N k, D)."""
    if x.numel() == 0:
        return spread_shapes(x, inverse, weights, k)
    out, launches = launch.movement(move.spread_kernel, x, inverse, weights, k)
    launch.run_all(launches)
    return out


def spread_shapes(x: Tensor, inverse: Tensor, weights: Tensor | None, k: int) -> Tensor:
    """Output of `spread`, not filled in."""
    return x.new_empty(inverse.shape[0], x.shape[1])


def gather(y: Tensor, inverse: Tensor, weights: Tensor | None, k: int) -> Tensor:
    """(N k, D) -> (N, D)."""
    if y.numel() == 0:
        return gather_shapes(y, inverse, weights, k)
    out, launches = launch.movement(move.gather_kernel, y, inverse, weights, k)
    launch.run_all(launches)
    return out


def gather_shapes(y: Tensor, inverse: Tensor, weights: Tensor | None, k: int) -> Tensor:
    """Output of `gather`, not filled in."""
    return y.new_empty(inverse.shape[0] // k, y.shape[1])


def dots(y: Tensor, dout: Tensor, inverse: Tensor, weights: Tensor) -> Tensor:
    """Gradient of the weights of combine, in their shape and type."""
    if y.numel() == 0:
        return torch.zeros_like(weights)
    out, launches = launch.dots(y, dout, inverse, weights.shape[1], weights.dtype)
    launch.run_all(launches)
    return out


def dots_shapes(y: Tensor, dout: Tensor, inverse: Tensor, weights: Tensor) -> Tensor:
    """Output of `dots`, not filled in."""
    return torch.empty_like(weights)


def route_backward_shapes(logits: Tensor, *others: Tensor | None) -> Tensor:
    """Output of `route_backward`, not filled in."""
    return torch.empty_like(logits)


def product(x: Tensor, order: Tensor | None, offsets: Tensor, weight: Tensor, k: int) -> Tensor:
    """(N, D), (E, D, H) -> (N k, H)."""
    if x.numel() == 0 or weight.numel() == 0:
        return product_shapes(x, order, offsets, weight, k).zero_()
    out, launches = launch.products(x, order, offsets, weight, k)
    launch.run_all(launches)
    return out


def product_shapes(x: Tensor, order: Tensor | None, offsets: Tensor, weight: Tensor, k: int) -> Tensor:
    """Output of `product`, not filled in."""
    return x.new_empty(x.shape[0] * k, weight.shape[2])


def product_weight(x: Tensor, order: Tensor, offsets: Tensor, dout: Tensor, k: int) -> Tensor:
    """Gradient of the matrices of `product`: (E, D, H)."""
    if x.numel() == 0 or dout.numel() == 0:
        return product_weight_shapes(x, order, offsets, dout, k).zero_()
    out, launches = launch.product_weights(x, order, offsets, dout, k)
    launch.run_all(launches)
    return out


def product_weight_shapes(x: Tensor, order: Tensor, offsets: Tensor, dout: Tensor, k: int) -> Tensor:
    """Output of `product_weight`, not filled in."""
    return x.new_empty(offsets.shape[0] - 1, x.shape[1], dout.shape[1])


SCHEMAS = {
    "route": "(Tensor logits, int k, bool renormalize, Tensor? bias, Tensor? allowed, Tensor? kinds) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    "route_backward": "(Tensor logits, Tensor lse, Tensor experts, Tensor? weights, Tensor? allowed, Tensor? kinds, Tensor? dweights, Tensor? dlse, "
    "Tensor? dprob_sum, Tensor? dz_sum) -> Tensor",
    "permute": "(Tensor experts, int num_experts) -> (Tensor, Tensor, Tensor)",
    "spread": "(Tensor x, Tensor inverse, Tensor? weights, int k) -> Tensor",
    "gather": "(Tensor y, Tensor inverse, Tensor? weights, int k) -> Tensor",
    "dots": "(Tensor y, Tensor dout, Tensor inverse, Tensor weights) -> Tensor",
    "product": "(Tensor x, Tensor? order, Tensor offsets, Tensor weight, int k) -> Tensor",
    "product_weight": "(Tensor x, Tensor order, Tensor offsets, Tensor dout, int k) -> Tensor",
}
FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "route": (route, route_shapes),
    "route_backward": (route_backward, route_backward_shapes),
    "permute": (permute, permute_shapes),
    "spread": (spread, spread_shapes),
    "gather": (gather, gather_shapes),
    "dots": (dots, dots_shapes),
    "product": (product, product_shapes),
    "product_weight": (product_weight, product_weight_shapes),
}
for _name, (_run, _shapes) in FUNCTIONS.items():
    LIBRARY.define(_name + SCHEMAS[_name])
    for _key in KEYS:
        LIBRARY.impl(_name, _run, _key)
    torch.library.register_fake(f"causalroute::{_name}", _shapes, lib=LIBRARY)
