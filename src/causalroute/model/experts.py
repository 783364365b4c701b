"""Low-rank experts on one trunk and their mixture.

    z_e = W (h + B_e gelu(A_e h)),     S = sum over chosen e of w_e z_e,     chosen and w from `causalroute.routing.route`

Letters: B batch, H trunk width, R rank, E experts, C classes, k experts per post.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from causalroute.model.layers import linear
from causalroute.routing import Routing, combine, dispatch_product, permute

IDLE = 0.01
"""Share of its kind's posts below which an expert counts as collapsed."""


class Experts(nn.Module):
    """E adapters that share the trunk's hidden layer and the class matrix W."""

    def __init__(self, hidden: int, rank: int, experts: int, classes: int, generator: Generator) -> None:
        super().__init__()
        self.head = linear(hidden, classes, generator)
        self.down = nn.Parameter(torch.stack([linear(hidden, rank, generator, bias=False).weight.detach() for _ in range(experts)]))  # (E, R, H)
        # B starts at zero: every expert starts as the trunk.
        self.up = nn.Parameter(torch.zeros(experts, rank, hidden))

    def forward(self, h: Tensor) -> Tensor:
        """Scores of all experts: (..., H) -> (..., E, C)."""
        inner = self.inner(h)
        return self.head(h).unsqueeze(-2) + torch.einsum("...er,erc->...ec", inner, self.up @ self.head.weight.T)

    def inner(self, h: Tensor) -> Tensor:
        """gelu(A_e h) of all experts: (..., H) -> (..., E, R)."""
        return functional.gelu(h @ self.down.flatten(0, 1).T).unflatten(-1, self.down.shape[:2])

    def sparse(self, h: Tensor, routing: Routing) -> Tensor:
        """The mixture with only the chosen experts computed: (B, H) -> (B, C)."""
        moved = permute(routing.experts, self.down.shape[0])
        inner = functional.gelu(dispatch_product(h, self.down.mT.contiguous(), moved))  # (B*k, R)
        parts = inner.split(moved.offsets.diff().tolist())
        scores = torch.cat([part @ up for part, up in zip(parts, (self.up @ self.head.weight.T).unbind(0), strict=True)])
        return self.head(h) * routing.weights.sum(1, keepdim=True) + combine(scores, routing.weights, moved)


def dense_weights(routing: Routing) -> Tensor:
    """Weights of all experts, 0 for those not chosen: (B, E)."""
    weights = routing.weights.new_zeros(routing.weights.shape[0], routing.counts.shape[0])
    return weights.scatter(1, routing.experts.long(), routing.weights)


class CollapseAlarm:
    """Finds experts that lost their posts, and says so once."""

    def __init__(self) -> None:
        self.before: Tensor | None = None
        self.told = False

    def look(self, load: Tensor) -> list[tuple[int, int]]:
        """(kind, expert) of those that have been idle at two looks in a row; load (kinds, experts of a kind) is the mean weight of each expert."""
        of_kind = load.sum(1, keepdim=True)
        idle = (load < IDLE * of_kind) & (of_kind > IDLE)
        lasting = idle & self.before if self.before is not None else torch.zeros_like(idle)
        self.before = idle
        if self.told or not lasting.any():
            return []
        self.told = True
        return [(kind, number) for kind, number in lasting.nonzero().tolist()]
