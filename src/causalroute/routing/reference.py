"""The specification in plain torch: autograd gives the backward pass, every sum has a fixed order.

Letters: N tokens, E experts, k experts per token, D width, H expert width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

INF = float("inf")


def route(
    logits: Tensor, k: int, renormalize: bool, selection_bias: Tensor | None, allowed: Tensor | None, kinds: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The fields of `Routing` in order; arguments are checked by the caller."""
    x = logits if logits.dtype == torch.float64 else logits.float()
    if allowed is not None and kinds is not None:
        allowed = rows_of(allowed, kinds)
    if allowed is not None:
        x = x.masked_fill(~allowed, -INF)
    chosen = choose(x.detach(), k, selection_bias)  # (N, k)
    alive = (x != -INF).any(1)  # a NaN counts as alive, so that it shows
    x = torch.where(alive[:, None], x, torch.zeros_like(x))
    lse = torch.logsumexp(x, 1)
    probabilities = (x - lse[:, None]).exp() * alive[:, None]  # (N, E)
    if renormalize:
        found = x.gather(1, chosen)
        served = (found != -INF).any(1)  # a bias of -inf can leave only experts of probability 0 to choose
        weights = torch.softmax(torch.where(served[:, None], found, torch.zeros_like(found)), 1) * (alive & served)[:, None]
        weights = torch.where(lse.isnan()[:, None], lse[:, None], weights)  # a NaN shows even where it was not chosen
    else:
        weights = probabilities.gather(1, chosen)
    counts = torch.zeros(x.shape[1], dtype=torch.int32, device=x.device)
    counts.scatter_add_(0, chosen.reshape(-1), torch.ones_like(chosen, dtype=torch.int32).reshape(-1))
    z_sum = torch.where(alive, lse, torch.zeros_like(lse)).square().sum()
    lse = torch.where(alive, lse, torch.full_like(lse, -INF))
    return weights, chosen.int(), lse, counts, probabilities.sum(0), z_sum


def rows_of(allowed: Tensor, kinds: Tensor) -> Tensor:
    """The mask (N, E) of each token by its kind; a kind outside the table is served by none."""
    ids = kinds.long()
    known = (ids >= 0) & (ids < allowed.shape[0])
    return allowed[ids.clamp(0, allowed.shape[0] - 1)] & known[:, None]


def choose(x: Tensor, k: int, selection_bias: Tensor | None) -> Tensor:
    """(N, k) int64 ids of the k largest, by descending x, ties to the smaller id."""
    key = torch.where(x.isnan(), torch.full_like(x, -INF), x)
    if selection_bias is None:
        return key.argsort(dim=1, descending=True, stable=True)[:, :k]
    biased = key + selection_bias.detach().to(key.dtype)
    biased = torch.where(biased.isnan(), torch.full_like(biased, -INF), biased)
    ids = biased.argsort(dim=1, descending=True, stable=True)[:, :k].sort(1).values
    return ids.gather(1, key.gather(1, ids).argsort(dim=1, descending=True, stable=True))


def permute(experts: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Order, inverse and offsets of the stable sort by expert; an id outside the experts goes to the nearest."""
    flat = experts.reshape(-1).long().clamp(0, num_experts - 1)
    order = flat.argsort(stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.shape[0], device=order.device)
    offsets = torch.zeros(num_experts + 1, dtype=torch.int64, device=flat.device)
    offsets.scatter_add_(0, flat + 1, torch.ones_like(flat))
    return order, inverse, offsets.cumsum(0)


class Take(Function):
    """Rows by index, and their gradients by the index that leads back: no scattered sums, in which the order of additions would be left to chance."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, back: Tensor, k: int) -> Tensor:
        """x[index]; each row of x is taken k times, at the places back[n k : n k + k]."""
        ctx.save_for_backward(back)
        ctx.k = k
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> Any:
        """Adds the k gradients of a row in the order of their places in `back`."""
        found = dout.index_select(0, ctx.saved_tensors[0])
        return found if ctx.k == 1 else found.unflatten(0, (-1, ctx.k)).sum(1), None, None, None


def dispatch(x: Tensor, order: Tensor, inverse: Tensor, k: int) -> Tensor:
    """(N, D) -> (N*k, D); the backward pass adds a token's k gradients in the order of its choices."""
    return Take.apply(x, order // k, inverse, k)


def product(x: Tensor, weight: Tensor, order: Tensor, inverse: Tensor, offsets: Tensor, k: int) -> Tensor:
    """(N, D), (E, D, H) -> (N*k, H), in the type of x also under autocast."""
    parts = dispatch(x, order, inverse, k).split(offsets.diff().tolist())
    with torch.autocast(x.device.type, enabled=False):
        return torch.cat([part @ matrix for part, matrix in zip(parts, weight.unbind(0), strict=True)])


def combine(y: Tensor, weights: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """(N*k, D), (N, k) -> (N, D)."""
    wide = torch.promote_types(torch.promote_types(y.dtype, weights.dtype), torch.float32)
    pairs = Take.apply(y, inverse, order, 1).to(wide).unflatten(0, weights.shape)  # (N, k, D)
    total, *others = (row * weight[:, None] for row, weight in zip(pairs.unbind(1), weights.to(wide).unbind(1), strict=True))
    for other in others:
        total = total + other
    return total.to(y.dtype)
