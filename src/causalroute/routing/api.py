"""The public routing functions: arguments are checked here, the arithmetic is done by a backend.

    p      = softmax(x)                       over all E experts
    chosen = the k largest of x + selection_bias, each token for itself
    load_balance = E / (k N^2) * sum_e counts_e prob_sum_e          z_loss = z_sum / N

Letters: N tokens, E experts, k experts per token, D width, H expert width, M kinds of token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from causalroute.routing import reference
from causalroute.routing.backend import Backend, choose

MAX_EXPERTS, MAX_CHOSEN = 1024, 8
DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


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
        kinds: (N,) integer row of `allowed` for each token, in [0, M); on CUDA and in traced code, where checking would stall, no expert serves a token of
            another kind.
        backend: "auto" takes the Triton kernels for CUDA tensors and plain torch elsewhere; a backend asked for by name never falls back to another.

    Raises:
        ValueError: on arguments that contradict each other, or a kind outside [0, M) on the CPU.
        RuntimeError: when backend is "triton" and that package is not installed.
    """
    _check(logits, k, selection_bias, allowed, kinds)
    if choose(backend, logits.device) == "triton":
        from causalroute.routing import autograd

        return Routing(*autograd.route(logits, k, renormalize, selection_bias, allowed, kinds))
    if allowed is not None and kinds is not None:
        _check_range("kinds", kinds, allowed.shape[0])
    return Routing(*reference.route(logits, k, renormalize, selection_bias, allowed, kinds))


def _check(logits: Tensor, k: int, bias: Tensor | None, allowed: Tensor | None, kinds: Tensor | None) -> None:
    if logits.ndim != 2 or logits.dtype not in DTYPES:
        raise ValueError(f"logits must be a floating-point (N, E) tensor (bfloat16, float16, float32 or float64), not {logits.dtype} of {tuple(logits.shape)}")
    tokens, experts = logits.shape
    if not 1 <= experts <= MAX_EXPERTS:
        raise ValueError(f"logits have {experts} experts; 1 to {MAX_EXPERTS} are supported")
    _check_integer("k", k)
    if not 1 <= k <= min(experts, MAX_CHOSEN):
        raise ValueError(f"k = {k} must lie between 1 and {min(experts, MAX_CHOSEN)} ({experts} experts, at most {MAX_CHOSEN} chosen)")
    for name, value in (("selection_bias", bias), ("allowed", allowed), ("kinds", kinds)):
        if value is not None and value.device != logits.device:
            raise ValueError(f"{name} is on {value.device}, logits are on {logits.device}: move one of them")
    if bias is not None and (bias.shape != (experts,) or bias.is_complex()):
        raise ValueError(f"selection_bias must be real, of shape ({experts},), not {bias.dtype} of {tuple(bias.shape)}")
    _check_mask(tokens, experts, allowed, kinds)


def _check_mask(tokens: int, experts: int, allowed: Tensor | None, kinds: Tensor | None) -> None:
    if kinds is not None and (allowed is None or kinds.shape != (tokens,) or kinds.dtype not in INTEGERS):
        raise ValueError(f"kinds must be an integer tensor of shape ({tokens},) and come with allowed")
    if allowed is None:
        return
    if allowed.dtype != torch.bool:
        raise ValueError(f"allowed must be a bool tensor, not {allowed.dtype}")
    rows_fit = allowed.ndim == 2 and (allowed.shape[0] == tokens if kinds is None else allowed.shape[0] > 0 or tokens == 0)
    if not rows_fit or allowed.shape[1] != experts:
        raise ValueError(f"allowed has shape {tuple(allowed.shape)}: expected ({tokens}, {experts}), or (M, {experts}) with kinds")


def _check_integer(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be an int, not {value!r} of type {type(value).__name__}")


def _check_range(name: str, ids: Tensor, count: int) -> None:
    """Only where the values are at hand: elsewhere a look at them would stall, or break a trace."""
    if ids.device.type != "cpu" or ids.numel() == 0 or torch.compiler.is_compiling():
        return
    low, high = (int(value) for value in ids.aminmax())
    if low < 0 or high >= count:
        raise ValueError(f"{name} must lie in [0, {count}), but {low if low < 0 else high} is among them")


def permute(experts: Tensor, num_experts: int, *, backend: Backend = "auto") -> Permutation:
    """Sorts the (token, choice) pairs by expert, stably, without a host synchronisation.

    Args:
        experts: (N, k) integer ids in [0, num_experts); on CUDA and in traced code, where checking would stall, another id goes to the nearest expert.
        num_experts: E, 1 to 1024.
        backend: as for `route`.

    Raises:
        ValueError: when `experts` is no (N, k) integer tensor, or on the CPU holds an id outside [0, num_experts).
    """
    if experts.ndim != 2 or experts.dtype not in INTEGERS or experts.shape[1] < 1:
        raise ValueError(f"experts must be an integer (N, k) tensor, not {experts.dtype} of shape {tuple(experts.shape)}")
    _check_integer("num_experts", num_experts)
    if not 1 <= num_experts <= MAX_EXPERTS:
        raise ValueError(f"num_experts must be positive and at most {MAX_EXPERTS}, not {num_experts}")
    if choose(backend, experts.device) == "triton":
        from causalroute.routing import autograd

        order, inverse, offsets = autograd.permute(experts, num_experts)
    else:
        _check_range("experts", experts, num_experts)
        order, inverse, offsets = reference.permute(experts, num_experts)
    return Permutation(order, inverse, offsets, experts.shape[1])


def dispatch(x: Tensor, permutation: Permutation, *, backend: Backend = "auto") -> Tensor:
    """Copies each token (N, D) to the places of its k experts: (N*k, D), sorted by expert; the gradients of a token are added in the order of its choices.

    Raises:
        ValueError: when x is not (N, D) for the permutation's N, or on another device.
    """
    _check_rows(x, permutation)
    _same_device(permutation, x=x)
    if choose(backend, x.device) == "triton":
        from causalroute.routing import autograd

        return autograd.dispatch(x, permutation.inverse, permutation.per_token)
    return reference.dispatch(x, permutation.order, permutation.inverse, permutation.per_token)


def dispatch_product(x: Tensor, weight: Tensor, permutation: Permutation, *, backend: Backend = "auto") -> Tensor:
    """Rows of `dispatch` times the matrix of their expert: (N, D), (E, D, H) -> (N*k, H), in the type of x.

    The Triton kernel reads the rows where the tokens lie, so that no sorted copy of x is made; worth it up to a D of about 512. The reference needs the
    number of rows of every expert on the host.

    Raises:
        ValueError: when shapes, types or devices disagree.
    """
    _check_rows(x, permutation)
    experts = permutation.offsets.shape[0] - 1
    if weight.ndim != 3 or weight.shape[:2] != (experts, x.shape[-1]) or weight.dtype != x.dtype:
        raise ValueError(f"weight must be ({experts}, {x.shape[-1]}, H) of {x.dtype}, not {tuple(weight.shape)} of {weight.dtype}")
    _same_device(permutation, x=x, weight=weight)
    if choose(backend, x.device) == "triton":
        from causalroute.routing import autograd

        return autograd.product(x, weight, permutation.order, permutation.inverse, permutation.offsets, permutation.per_token)
    return reference.product(x, weight, permutation.order, permutation.inverse, permutation.offsets, permutation.per_token)


def combine(y: Tensor, weights: Tensor, permutation: Permutation, *, backend: Backend = "auto") -> Tensor:
    """Weighted sum (N, D) over each token's k results y (N*k, D), in the type of y; added in the order of the choices, in float32 or wider, and rounded once.

    Raises:
        ValueError: when shapes or devices disagree with the permutation.
    """
    pairs = permutation.inverse.shape[0]
    if y.ndim != 2 or y.shape[0] != pairs or weights.numel() != pairs or weights.ndim != 2 or weights.shape[1] != permutation.per_token:
        raise ValueError(f"y {tuple(y.shape)} and weights {tuple(weights.shape)} do not fit a permutation of {pairs} pairs, {permutation.per_token} per token")
    _same_device(permutation, y=y, weights=weights)
    if choose(backend, y.device) == "triton":
        from causalroute.routing import autograd

        return autograd.combine(y, weights, permutation.inverse)
    return reference.combine(y, weights, permutation.order, permutation.inverse)


def _check_rows(x: Tensor, permutation: Permutation) -> None:
    if x.ndim != 2 or x.shape[0] * permutation.per_token != permutation.order.shape[0]:
        raise ValueError(f"x has shape {tuple(x.shape)}; the permutation is for {permutation.order.shape[0] // permutation.per_token} tokens")


def _same_device(permutation: Permutation, **tensors: Tensor) -> None:
    for name, value in tensors.items():
        if value.device != permutation.inverse.device:
            raise ValueError(f"{name} is on {value.device}, the permutation is on {permutation.inverse.device}: move one of them")


def load_balance(routing: Routing) -> Tensor:
    """Switch load-balance loss, E / (k N^2) sum_e counts_e prob_sum_e: 1 when even (Fedus et al. 2022); 0 without tokens."""
    tokens, k = routing.weights.shape
    factor = routing.counts.shape[0] / (k * max(tokens, 1) ** 2)
    return factor * (routing.counts.to(routing.prob_sum.dtype) * routing.prob_sum).sum()


def z_loss(routing: Routing) -> Tensor:
    """Mean squared logsumexp of the router (Zoph et al. 2022); 0 without tokens."""
    return routing.z_sum / max(routing.weights.shape[0], 1)
