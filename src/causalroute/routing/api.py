"""The public routing functions: arguments are checked here, the arithmetic is done by a backend.

    p      = softmax(x)                       over all E experts
    chosen = the k largest of x + selection_bias, each token for itself
    load_balance = E / (k N^2) * sum_e counts_e prob_sum_e          z_loss = z_sum / N

Letters: N tokens, E experts, k experts per token, D width, M kinds of token.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from causalroute.routing import reference

Backend = Literal["auto", "reference"]
MAX_EXPERTS, MAX_CHOSEN = 1024, 8
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Routing:
    """What the router decided for N tokens."""

    weights: Tensor
    """(N, k) mixing weights, float32 (float64 for float64 logits), differentiable"""
    experts: Tensor
    """(N, k) int32 ids, descending weight, ties to the smaller id, always k distinct ids"""
    lse: Tensor
    """(N,) logsumexp of the logits; -inf for a token that no expert serves"""
    counts: Tensor
    """(E,) int32, tokens per expert"""
    prob_sum: Tensor
    """(E,) sum over tokens of the softmax, differentiable"""
    z_sum: Tensor
    """() sum over tokens of lse squared, differentiable"""


@dataclass(frozen=True)
class Permutation:
    """The stable order that puts the (token, choice) pairs of one expert beside each other."""

    order: Tensor
    """(N*k,) int64: place -> pair"""
    inverse: Tensor
    """(N*k,) int64: pair -> place"""
    offsets: Tensor
    """(E+1,) int64: expert e owns the places offsets[e]:offsets[e+1]"""
    per_token: int
    """k"""


def route(
    logits: Tensor,
    k: int,
    *,
    renormalize: bool = False,
    selection_bias: Tensor | None = None,
    allowed: Tensor | None = None,
    kinds: Tensor | None = None,
    backend: Backend = "auto",
) -> Routing:
    """Softmax over all experts, the k best per token, and the sums that the two auxiliary losses need.

    `-inf` logits are legal. NaN counts as -inf for the choice only: the token's weights and `lse` stay NaN, so that a diverged router shows. A token
    with fewer than k eligible experts gets the smallest other ids with weight 0; one without any has all weights 0 and adds nothing to `prob_sum` and `z_sum`.

    Args:
        logits: (N, E) bfloat16, float16, float32 (computed in float32) or float64.
        k: experts per token, 1 to 8.
        renormalize: let the k weights of a token sum to 1.
        selection_bias: (E,) added for the choice only, never to the weights (loss-free balancing, Wang et al. 2024).
        allowed: bool (N, E); or (M, E) together with `kinds`; False excludes an expert.
        kinds: (N,) integer row of `allowed` for each token.
        backend: "auto" takes the best one for the device; a backend asked for by name never falls back to another.

    Raises:
        ValueError: on arguments that contradict each other.
    """
    allowed = _check(logits, k, selection_bias, allowed, kinds)
    name = _backend(backend)
    log.debug("routing backend: %s", name)
    return Routing(*reference.route(logits, k, renormalize, selection_bias, allowed))


def _backend(name: str) -> str:
    if name not in ("auto", "reference"):
        raise ValueError(f"unknown routing backend {name!r}: choose from ['auto', 'reference']")
    return "reference"


def _check(logits: Tensor, k: int, bias: Tensor | None, allowed: Tensor | None, kinds: Tensor | None) -> Tensor | None:
    """The mask as (N, E), after every argument was checked."""
    if logits.ndim != 2 or not logits.is_floating_point():
        raise ValueError(f"logits must be a floating-point (N, E) tensor, not {logits.dtype} of shape {tuple(logits.shape)}")
    tokens, experts = logits.shape
    if not 1 <= experts <= MAX_EXPERTS:
        raise ValueError(f"logits have {experts} experts; 1 to {MAX_EXPERTS} are supported")
    if not 1 <= k <= min(experts, MAX_CHOSEN):
        raise ValueError(f"k = {k} must lie between 1 and {min(experts, MAX_CHOSEN)} ({experts} experts, at most {MAX_CHOSEN} chosen)")
    if bias is not None and bias.shape != (experts,):
        raise ValueError(f"selection_bias must have shape ({experts},), not {tuple(bias.shape)}")
    if (kinds is not None) and (allowed is None or kinds.shape != (tokens,)):
        raise ValueError(f"kinds must have shape ({tokens},) and come with allowed")
    if allowed is None:
        return None
    if allowed.dtype != torch.bool:
        raise ValueError(f"allowed must be a bool tensor, not {allowed.dtype}")
    mask = allowed if kinds is None else allowed[kinds.long()]
    if mask.shape != logits.shape:
        raise ValueError(f"allowed has shape {tuple(allowed.shape)}: expected ({tokens}, {experts}), or (M, {experts}) with kinds")
    return mask


def permute(experts: Tensor, num_experts: int) -> Permutation:
    """Sorts the (token, choice) pairs by expert, stably, without a host synchronisation.

    Args:
        experts: (N, k) integer ids in [0, num_experts).
        num_experts: E.

    Raises:
        ValueError: when `experts` is no (N, k) integer tensor.
    """
    if experts.ndim != 2 or experts.is_floating_point() or experts.dtype == torch.bool:
        raise ValueError(f"experts must be an integer (N, k) tensor, not {experts.dtype} of shape {tuple(experts.shape)}")
    if num_experts < 1:
        raise ValueError(f"num_experts must be positive, not {num_experts}")
    return Permutation(*reference.permute(experts, num_experts), per_token=experts.shape[1])


def dispatch(x: Tensor, permutation: Permutation) -> Tensor:
    """Copies each token (N, D) to the places of its k experts: (N*k, D), sorted by expert.

    Raises:
        ValueError: when x is not (N, D) for the permutation's N.
    """
    if x.ndim != 2 or x.shape[0] * permutation.per_token != permutation.order.shape[0]:
        raise ValueError(f"x has shape {tuple(x.shape)}; the permutation is for {permutation.order.shape[0] // permutation.per_token} tokens")
    return reference.dispatch(x, permutation.order, permutation.per_token)


def combine(y: Tensor, weights: Tensor, permutation: Permutation) -> Tensor:
    """Weighted sum (N, D) over each token's k results y (N*k, D); summed in the order of the choices.

    Raises:
        ValueError: when shapes disagree with the permutation.
    """
    pairs = permutation.inverse.shape[0]
    if y.ndim != 2 or y.shape[0] != pairs or weights.numel() != pairs or weights.ndim != 2 or weights.shape[1] != permutation.per_token:
        raise ValueError(f"y {tuple(y.shape)} and weights {tuple(weights.shape)} do not fit a permutation of {pairs} pairs, {permutation.per_token} per token")
    return reference.combine(y, weights, permutation.inverse)


def load_balance(routing: Routing) -> Tensor:
    """Switch load-balance loss, E / (k N^2) sum_e counts_e prob_sum_e: 1 when even (Fedus et al. 2022); 0 without tokens."""
    tokens, k = routing.weights.shape
    factor = routing.counts.shape[0] / (k * max(tokens, 1) ** 2)
    return factor * (routing.counts.to(routing.prob_sum.dtype) * routing.prob_sum).sum()


def z_loss(routing: Routing) -> Tensor:
    """Mean squared logsumexp of the router (Zoph et al. 2022); 0 without tokens."""
    return routing.z_sum / max(routing.weights.shape[0], 1)
