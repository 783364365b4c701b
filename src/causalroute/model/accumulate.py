"""A sum of losses whose graphs are freed one after the other, for passes that do not fit into memory together.

backward of sum_j l_j is sum_j grad l_j: each gradient is taken as soon as its loss is known, and kept in place of its graph
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Part = Callable[[], Tensor]
"""Computes one loss, a scalar, with its graph."""


def summed(parts: Iterable[Part], parameters: Sequence[nn.Parameter]) -> Tensor:
    """The sum of the parts, with gradients with respect to `parameters` alone; parts are computed in turn, and drawn from an iterator one by one."""
    result: Tensor = _Sum.apply(parts, *parameters)
    return result


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parts: Iterable[Part], *parameters: Tensor) -> Tensor:
        total, grads = parameters[0].new_zeros(()), [torch.zeros_like(parameter) for parameter in parameters]
        with torch.enable_grad():
            for part in parts:
                value = part()
                found = torch.autograd.grad(value, parameters, allow_unused=True)
                total += value.detach()
                for grad, more in zip(grads, found, strict=True):
                    if more is not None:
                        grad += more
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *(outer[0] * grad for grad in ctx.saved_tensors))
