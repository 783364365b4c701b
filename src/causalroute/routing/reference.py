"""The specification in plain torch: autograd gives the backward pass, every sum has a fixed order.

Letters: N tokens, E experts, k experts per token, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

INF = float("inf")


def route(
    logits: Tensor, k: int, renormalize: bool, selection_bias: Tensor | None, allowed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The fields of `Routing` in order; arguments are checked by the caller."""
    x = logits if logits.dtype == torch.float64 else logits.float()
    if allowed is not None:
        x = x.masked_fill(~allowed, -INF)
    chosen = choose(x.detach(), k, selection_bias)  # (N, k)
    alive = (x != -INF).any(1)  # a NaN counts as alive, so that it shows
    x = torch.where(alive[:, None], x, torch.zeros_like(x))
    lse = torch.logsumexp(x, 1)
    probabilities = (x - lse[:, None]).exp() * alive[:, None]  # (N, E)
    if renormalize:
        weights = torch.softmax(x.gather(1, chosen), 1) * alive[:, None]
    else:
        weights = probabilities.gather(1, chosen)
    counts = torch.zeros(x.shape[1], dtype=torch.int32, device=x.device)
    counts.scatter_add_(0, chosen.reshape(-1), torch.ones_like(chosen, dtype=torch.int32).reshape(-1))
    z_sum = torch.where(alive, lse, torch.zeros_like(lse)).square().sum()
    lse = torch.where(alive, lse, torch.full_like(lse, -INF))
    return weights, chosen.int(), lse, counts, probabilities.sum(0), z_sum


def choose(x: Tensor, k: int, selection_bias: Tensor | None) -> Tensor:
    """(N, k) int64 ids of the k largest, by descending x, ties to the smaller id."""
    key = torch.where(x.isnan(), torch.full_like(x, -INF), x)
    if selection_bias is None:
        return key.argsort(dim=1, descending=True, stable=True)[:, :k]
    biased = (key + selection_bias.to(key.dtype)).argsort(dim=1, descending=True, stable=True)[:, :k]
    ids = biased.sort(1).values
    return ids.gather(1, key.gather(1, ids).argsort(dim=1, descending=True, stable=True))


def permute(experts: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Order, inverse and offsets of the stable sort by expert."""
    flat = experts.reshape(-1).long()
    order = flat.argsort(stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.shape[0], device=order.device)
    offsets = torch.zeros(num_experts + 1, dtype=torch.int64, device=flat.device)
    offsets.scatter_add_(0, flat + 1, torch.ones_like(flat))
    return order, inverse, offsets.cumsum(0)


def dispatch(x: Tensor, order: Tensor, k: int) -> Tensor:
    """(N, D) -> (N*k, D); the backward pass adds a token's k gradients in the order of its choices."""
    return x[:, None].expand(-1, k, -1).reshape(-1, x.shape[1])[order]


def combine(y: Tensor, weights: Tensor, inverse: Tensor) -> Tensor:
    """(N*k, D), (N, k) -> (N, D)."""
    pairs = y[inverse].reshape(*weights.shape, y.shape[1])  # (N, k, D)
    total = pairs[:, 0] * weights[:, :1].to(y.dtype)
    for choice in range(1, weights.shape[1]):
        total = total + pairs[:, choice] * weights[:, choice : choice + 1].to(y.dtype)
    return total
