"""States of single tokens and patches on the trunk of the whole post, and the mixture whose experts are chosen token by token.

    h_i = h + gelu(P_m x_i + Q_m h)               h the trunk of the pair, x_i a token of side m
    a   = softmax over the tokens of both sides of q . h_i
    S   = W sum_i a_i (h_i + sum_e w_ie B_e gelu(A_e h_i))
    z_e = the same with expert e alone; where the modality mask forbids it, the keep-expert with the same index acts instead

Letters: B batch, L tokens of both sides, the text's Lt first; H trunk width, R rank, E experts, C classes; in front may stand axes of views.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from causalroute.model.experts import Experts, dense_weights
from causalroute.model.layers import dropout, linear
from causalroute.routing import Routing, route

Side = tuple[Tensor, Tensor]
"""Tokens (..., B, L, D) and which of them there are (..., B, L)."""


@dataclass(frozen=True)
class States:
    """Of all tokens of the posts."""

    h: Tensor
    """(..., B, L, H)"""
    attention: Tensor
    """(..., B, L) a; 0 where no token is"""
    mask: Tensor
    """(..., B, L) bool: a token is here"""
    texts: int
    """Lt"""

    @property
    def sides(self) -> Tensor:
        """(..., B, L) 0 for text, 1 for image."""
        return (torch.arange(self.h.shape[-2]) >= self.texts).long().expand(self.mask.shape)

    def scatter(self, of_tokens: Tensor) -> Tensor:
        """What is known of the M tokens that there are, (M, E), at their places: (..., B, L, E), 0 where no token is."""
        places = of_tokens.new_zeros(*self.mask.shape, of_tokens.shape[1])
        places[self.mask] = of_tokens
        return places


class TokenTrunk(nn.Module):
    """States of tokens; tokens are standardised by numbers that `fit` sets."""

    def __init__(self, widths: tuple[int, int], hidden: int, rate: float, generator: Generator) -> None:
        super().__init__()
        self.rate = rate
        self.read = nn.ModuleList([linear(width, hidden, generator, fan_in=width + hidden) for width in widths])
        self.seen = nn.ModuleList([linear(hidden, hidden, generator, bias=False, fan_in=width + hidden) for width in widths])
        self.query = linear(hidden, 1, generator, bias=False)
        for side, width in zip(("text", "image"), widths, strict=True):
            self.register_buffer(f"{side}_mean", torch.zeros(width))
            self.register_buffer(f"{side}_std", torch.ones(width))

    def fit(self, side: str, sums: tuple[Tensor, Tensor, Tensor]) -> None:
        """Standardises a side ("text", "image") by the `token_sums` of its train tokens."""
        count, total, squares = sums
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=0).sqrt()
        getattr(self, f"{side}_mean").copy_(mean)
        getattr(self, f"{side}_std").copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))  # a feature that never varies is only centred

    def grid(self, h: Tensor, text: Side, image: Side, generator: Generator | None = None) -> States:
        """Every text view with every visual view: trunk (a, b, B, H), text tokens (a, B, Lt, Dt), patches (b, B, Lv, Dv)."""
        views = h.shape[:2]
        t, v = self._read(0, "text", text)[:, None], self._read(1, "image", image)[None]
        t = t + self.seen[0](h).unsqueeze(-2)
        v = v + self.seen[1](h).unsqueeze(-2)
        inner = functional.gelu(torch.cat([t, v], -2))  # (a, b, B, L, H)
        own = dropout(inner.movedim(-2, 0), self.rate, generator).movedim(0, -2)
        states = h.unsqueeze(-2) + own
        mask = torch.cat([text[1][:, None].expand(*views, -1, -1), image[1][None].expand(*views, -1, -1)], -1)
        scores = self.query(states).squeeze(-1) / states.shape[-1] ** 0.5
        return States(states, scores.masked_fill(~mask, float("-inf")).softmax(-1), mask, t.shape[-2])

    def forward(self, h: Tensor, text: Side, image: Side) -> States:
        """One view of each side: trunk (B, H), tokens (B, Lt, Dt), patches (B, Lv, Dv)."""
        one = self.grid(h[None, None], (text[0][None], text[1][None]), (image[0][None], image[1][None]))
        return States(one.h[0, 0], one.attention[0, 0], one.mask[0, 0], one.texts)

    def _read(self, number: int, side: str, tokens: Side) -> Tensor:
        """P_m x, (..., B, L, H)."""
        found: Tensor = self.read[number]((tokens[0] - getattr(self, f"{side}_mean")) / getattr(self, f"{side}_std"))
        return found


def token_sums(parts: Iterable[Side]) -> tuple[Tensor, Tensor, Tensor]:
    """Count, sum (D,) and sum of squares (D,) of tokens, float64; of no more than one part at a time is anything in memory."""
    count = total = squares = torch.zeros((), dtype=torch.float64)
    for tokens, inside in parts:
        x = tokens[inside].double()
        count, total, squares = count + len(x), total + x.sum(0), squares + x.square().sum(0)
    return count, total, squares


@dataclass(frozen=True)
class TokenRouter:
    """Gates of posts to weights of experts on tokens, through `causalroute.routing`.

    With the modality mask an expert that treats the other side alone gets no token of this one; what its gate says falls to the experts that keep.
    """

    kinds: Tensor
    """(E,) 0 keep, 1 text, 2 image, 3 both"""
    top_k: int
    """0: all, weighted"""
    masked: bool = True

    def allowed(self) -> Tensor:
        """(2, E) bool: which experts may act on tokens of the text, and of the image."""
        if not self.masked:
            return torch.ones(2, len(self.kinds), dtype=torch.bool)
        return torch.stack([self.kinds != 2, self.kinds != 1])

    def forced(self) -> Tensor:
        """(2, E) the expert that acts on tokens of each side when expert e is to act alone: e, or where it may not the keep-expert with the same index."""
        each = torch.arange(len(self.kinds))
        keep = each - self.kinds * (len(self.kinds) // 4)
        return torch.where(self.allowed(), each, keep)

    def gates(self, log_gates: Tensor) -> Tensor:
        """Log-gates (B, 4) of posts -> of the tokens of each side (2, B, 4), before `allowed`: what a forbidden kind has is added to keep."""
        if not self.masked:
            return log_gates.expand(2, *log_gates.shape)
        keep, text, image, both = log_gates.unbind(-1)
        return torch.stack([torch.stack([torch.logaddexp(keep, other), text, image, both], -1) for other in (image, text)])

    def __call__(self, log_gates: Tensor, states: States, within: nn.Module | None, bias: Tensor | None) -> tuple[Routing, Tensor]:
        """Routing of the M tokens that there are, and weights (M, E) in the order of `states.mask`."""
        sides = states.sides[states.mask]  # (M,)
        posts = torch.arange(len(log_gates))[:, None].expand(states.mask.shape)[states.mask]
        logits = self.gates(log_gates)[sides, posts]  # (M, 4)
        if within is not None:
            logits = logits[:, self.kinds] + within(states.h[states.mask]).unflatten(-1, (4, -1)).log_softmax(-1).flatten(-2)
        found = route(logits, self.top_k or 1, renormalize=True, selection_bias=bias, allowed=self.allowed(), kinds=sides)
        return found, dense_weights(found) if self.top_k else logits.masked_fill(~self.allowed()[sides], float("-inf")).softmax(-1)


def mixture(experts: Experts, states: States, weights: Tensor, forced: Tensor) -> tuple[Tensor, Tensor]:
    """S (..., B, C) and z (..., B, E, C) from weights (M, E) and `TokenRouter.forced`."""
    attention, image = states.attention, states.sides.bool()
    base = experts.head(attention.unsqueeze(-2) @ states.h)  # (..., B, 1, C)
    inner, up = experts.inner(states.h), experts.up @ experts.head.weight.T  # (..., B, L, E, R), (E, R, C)
    # One product of matrices sums over the tokens of each side: slices of `inner` would cost a copy each on the way back.
    of_sides = torch.stack([attention.masked_fill(image, 0.0), attention.masked_fill(~image, 0.0)], -2) @ inner.flatten(-2)  # (..., B, 2, E * R)
    sides = torch.einsum("...ser,erc->...sec", of_sides.unflatten(-1, experts.down.shape[:2]), up)  # (..., B, 2, E, C)
    z = base + sum(sides[..., side, chosen, :] for side, chosen in enumerate(forced))
    mixed = ((attention[..., None] * states.scatter(weights))[..., None] * inner).sum(-3)  # (..., B, E, R)
    return base.squeeze(-2) + torch.einsum("...er,erc->...c", mixed, up), z


def sparse(experts: Experts, states: States, routing: Routing) -> Tensor:
    """S (B, C) with only the chosen experts computed; states of B posts, without axes of views."""
    posts = torch.arange(len(states.h))[:, None].expand(states.mask.shape)[states.mask]
    scores = states.attention[states.mask][:, None] * experts.sparse(states.h[states.mask], routing)
    return scores.new_zeros(len(states.h), scores.shape[1]).index_add(0, posts, scores)
