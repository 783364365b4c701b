"""Gradients of the Triton operators. Saved for the backward pass: the logits, lse and ids, never another N x E tensor.

Letters: N tokens, E experts, k experts per token, D width, H expert width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from causalroute.routing import ops  # noqa: F401  (registers torch.ops.causalroute)

operators = torch.ops.causalroute


def _first_only() -> None:
    """`once_differentiable` of torch would leave out terms in silence where only the logits, not the incoming gradients, need a second derivative."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError('the Triton router has no second derivative: take backward without create_graph, or backend="reference"')


class Route(Function):
    """`operators.route`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, k: int, renormalize: bool, bias: Tensor | None, allowed: Tensor | None, kinds: Tensor | None) -> Any:
        """The fields of `Routing` in order."""
        weights, experts, lse, counts, prob_sum, z_sum = operators.route(logits, k, renormalize, bias, allowed, kinds)
        ctx.save_for_backward(logits, lse, experts, weights if renormalize else None, allowed, kinds)
        ctx.mark_non_differentiable(experts, counts)
        ctx.set_materialize_grads(False)
        return weights, experts, lse, counts, prob_sum, z_sum

    @staticmethod
    def backward(ctx: Any, dweights: Any, _experts: Any, dlse: Any, _counts: Any, dprob_sum: Any, dz_sum: Any) -> Any:
        """The gradient of the logits alone."""
        _first_only()
        dense = (None if value is None else value.contiguous() for value in (dweights, dlse, dprob_sum, dz_sum))
        return operators.route_backward(*ctx.saved_tensors, *dense), None, None, None, None, None


class Dispatch(Function):
    """`operators.spread` without weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inverse: Tensor, k: int) -> Tensor:
        """(N, D) -> (N k, D)."""
        ctx.save_for_backward(inverse)
        ctx.k = k
        return operators.spread(x, inverse, None, k)

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> Any:
        """The sum of a token's k gradients, in the order of its choices."""
        _first_only()
        return operators.gather(dout.contiguous(), ctx.saved_tensors[0], None, ctx.k), None, None


class Combine(Function):
    """`operators.gather` with weights."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weights: Tensor, inverse: Tensor) -> Tensor:
        """(N k, D), (N, k) -> (N, D)."""
        ctx.save_for_backward(y, weights, inverse)
        return operators.gather(y, inverse, weights, weights.shape[1])

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> Any:
        """Gradients of what needs one."""
        _first_only()
        y, weights, inverse = ctx.saved_tensors
        dout = dout.contiguous()
        dy = operators.spread(dout, inverse, weights, weights.shape[1]) if ctx.needs_input_grad[0] else None
        dweights = operators.dots(y, dout, inverse, weights) if ctx.needs_input_grad[1] else None
        return dy, dweights, None


class Product(Function):
    """`operators.product`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, order: Tensor, inverse: Tensor, offsets: Tensor, k: int) -> Tensor:
        """(N, D), (E, D, H) -> (N k, H)."""
        ctx.save_for_backward(x, weight, order, inverse, offsets)
        ctx.k = k
        return operators.product(x, order, offsets, weight, k)

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> Any:
        """Gradients of what needs one."""
        _first_only()
        (x, weight, order, inverse, offsets), dx, dweight = ctx.saved_tensors, None, None
        dout = dout.contiguous()
        if ctx.needs_input_grad[0]:
            dx = operators.gather(operators.product(dout, None, offsets, weight.transpose(1, 2), 1), inverse, None, ctx.k)
        if ctx.needs_input_grad[1]:
            dweight = operators.product_weight(x, order, offsets, dout, ctx.k)
        return dx, dweight, None, None, None, None


def route(logits: Tensor, k: int, renormalize: bool, bias: Tensor | None, allowed: Tensor | None, kinds: Tensor | None) -> Any:
    """The fields of `Routing` in order; arguments are checked by the caller, any strides."""
    dense = [None if value is None else value.detach().contiguous() for value in (bias, allowed, kinds)]
    if logits.requires_grad and torch.is_grad_enabled():
        return Route.apply(logits.contiguous(), k, renormalize, *dense)
    return operators.route(logits.contiguous(), k, renormalize, *dense)


def permute(experts: Tensor, num_experts: int) -> Any:
    """Order, inverse and offsets."""
    return operators.permute(experts.contiguous(), num_experts)


def dispatch(x: Tensor, inverse: Tensor, k: int) -> Tensor:
    """(N, D) -> (N k, D)."""
    return Dispatch.apply(x.contiguous(), inverse, k)


def combine(y: Tensor, weights: Tensor, inverse: Tensor) -> Tensor:
    """(N k, D), (N, k) -> (N, D)."""
    return Combine.apply(y.contiguous(), weights.contiguous(), inverse)


def product(x: Tensor, weight: Tensor, order: Tensor, inverse: Tensor, offsets: Tensor, k: int) -> Tensor:
    """(N, D), (E, D, H) -> (N k, H)."""
    return Product.apply(x.contiguous(), weight, order, inverse, offsets, k)
