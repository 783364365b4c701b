"""The causal mixture with experts chosen token by token: `causal_moe` on the features of single tokens and patches beside those of whole sides.

    g      as in `causal_moe`, a gate of the post
    g_i    for a token of the text: keep + image, text, both; for a patch: keep + text, image, both      an expert that debiases one side gets no token of
                                                                                                         the other (`masked: false`: g for every token)
    w_i    from g_i through causalroute.routing, with its modality mask
    S      attention over tokens, each with its own experts (model/tokens.py)

Losses, evidence and gate are those of `causal_moe`. The backbone keeps tokens (any but a multimodal LLM, for which see `lora_moe`); the workflow makes their
features where this method is among the rows.
Letters: B batch, E experts, C classes, L tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor
from torch.nn import functional

from causalroute.config import section
from causalroute.errors import UserError
from causalroute.methods import causal_moe
from causalroute.methods.base import Inputs, Origin, Posts, Shape
from causalroute.methods.swapping import Batch
from causalroute.model.tokens import Side, States, TokenRouter, TokenTrunk, mixture, sparse, token_sums
from causalroute.routing import Routing
from causalroute.stored.tokens import TokenReader

if TYPE_CHECKING:
    from collections.abc import Sequence

EDITOR = "dataset"
READS = "tokens"
ROWS = 256
"""Posts whose tokens are in memory at a time when answers are given."""


@section
class Settings(causal_moe.Settings):
    """Those of `causal_moe`, and of tokens."""

    masked: bool = True
    """an expert that debiases one side alone gets no token of the other side"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.masked and self.top_k > 3 * self.per_kind:
            raise ValueError(f"top_k = {self.top_k} exceeds the {3 * self.per_kind} experts that a token may use (3 of 4 kinds, per_kind = {self.per_kind})")


def open_posts(ids: Sequence[str], origin: Origin) -> TokenReader:
    """What reads the tokens of the posts `ids`."""
    return TokenReader(ids, origin.dataset, origin.name, origin.editor, origin.held_out)


class Method(causal_moe.Method):
    """See the module."""

    settings: Settings

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.trunk: TokenTrunk | None = None

    def attach(self, reader: TokenReader, generator: Generator) -> None:
        """Makes what depends on the widths of tokens."""
        self.trunk = TokenTrunk(reader.widths, self.shape.hidden, self.shape.dropout, generator)

    def _trunk(self) -> TokenTrunk:
        if self.trunk is None:
            raise UserError("token_moe reads features of tokens, and got none", where="methods.token_moe", fix="run it by the workflow, which makes them")
        return self.trunk

    @property
    def router(self) -> TokenRouter:
        """Gates to tokens."""
        return TokenRouter(self.kinds, self.settings.top_k, self.settings.masked)

    def prepare(self, posts: Posts, generator: Generator) -> None:
        """Finds what tokens are standardised with, then as `causal_moe`."""
        for side, view in (("text", "t"), ("image", "v")):
            self._trunk().fit(side, token_sums(posts.reader.read(view, rows) for rows in posts.train.split(ROWS)))
        super().prepare(posts, generator)

    def states(self, batch: Batch, generator: Generator | None) -> States:
        """Of all tokens: (2, 2, B, L, H)."""
        posts, rows, picks = batch.posts, batch.rows, batch.picks
        text, image = (_both(posts.reader.read(view, rows), posts.reader.read(f"{view}_swap", rows, pick)) for view, pick in zip("tv", picks, strict=True))
        return self._trunk().grid(super().states(batch, generator), text, image, generator)

    def mixture(self, h: States, log_gates: Tensor) -> tuple[Tensor, Tensor, Routing]:
        """Scores of the mixture (..., B, C) and of each expert acting alone (..., B, E, C), and the routing of all tokens."""
        router = self.router
        found, weights = router(log_gates, h, self.within, self.bias)
        return *mixture(self.experts, h, weights, router.forced()), found

    def _within_z(self, h: States, batch: Batch) -> Tensor:
        """z-loss of the choice among experts of a kind, over all tokens as they are: states without dropout would cost half a step more."""
        return self._squared(h.h[h.mask])

    def answered(self, inputs: Inputs, log_gates: Tensor) -> tuple[Tensor, Tensor]:
        """S (B, C), and the mean weights of all experts on the tokens of each post, by attention, (B, E)."""
        if inputs.raw is None:
            raise ValueError("the mixture over tokens needs inputs of posts whose tokens can be read (`raw`)")
        raw, h = inputs.raw, self.encoder(inputs.t, inputs.v, k=inputs.k)
        parts = [self._answered(raw, rows, h[rows], log_gates[rows]) for rows in torch.arange(len(h)).split(ROWS)]
        s, weights = (torch.cat(part) for part in zip(*parts, strict=True))
        return s, weights

    def _answered(self, raw: Any, rows: Tensor, h: Tensor, log_gates: Tensor) -> tuple[Tensor, Tensor]:
        states = self._trunk()(h, *(raw.reader.read(view, raw.rows[rows], raw.swap) for view in (raw.text, raw.image)))
        router = self.router
        routing, weights = router(log_gates, states, self.within, self.bias)
        s = sparse(self.experts, states, routing) if self.settings.top_k else mixture(self.experts, states, weights, router.forced())[0]
        return s, (states.attention[..., None] * states.scatter(weights)).sum(1)


def _both(own: Side, swapped: Side) -> Side:
    """(2, B, L, D) and (2, B, L): own and swapped tokens, as many of each as the longer ones have."""
    longest = max(own[0].shape[1], swapped[0].shape[1])
    tokens, inside = zip(*(_padded(side, longest) for side in (own, swapped)), strict=True)
    return torch.stack(tokens), torch.stack(inside)


def _padded(side: Side, longest: int) -> Side:
    more = longest - side[0].shape[1]
    return functional.pad(side[0], (0, 0, 0, more)), functional.pad(side[1], (0, more))
