"""A mixture of experts without any debiasing, in the manner of MoBA (Xie et al. 2024): low-rank adapters on one trunk, a router trained by the task alone.

    z_e = W (h + B_e gelu(A_e h)),   S = sum over the k best e of w_e z_e,   w = softmax(R h) over all e, made to sum to 1 over the k where k > 1
    L   = CE(S) + balance load_balance + z z_loss

h joint hidden layer; routing by `causalroute.routing`. MoBA puts its adapters inside the two encoders, which are frozen here.
"""

from __future__ import annotations

from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import base
from causalroute.methods.base import Answer, Inputs, Posts, Shape
from causalroute.model.experts import Experts, dense_weights
from causalroute.model.layers import Encoder, linear
from causalroute.model.losses import cross_entropy
from causalroute.routing import Routing, load_balance, route, z_loss

EDITOR = None
SEARCH = {"experts": (4, 8), "top_k": (1, 2)}


@section
class Settings:
    """Settings of the plain mixture."""

    experts: int = 4
    """adapters"""
    rank: int = 8
    """of an adapter"""
    top_k: int = 2
    """experts per post"""
    balance: float = 0.01
    """weight of the load-balance loss"""
    z: float = 0.001
    """weight of the router's z-loss"""

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.experts:
            raise ValueError(f"top_k = {self.top_k} must lie between 1 and the {self.experts} experts")


class Method(base.Method):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.encoder = Encoder(shape.text_dim, shape.image_dim, shape.hidden, shape.dropout, generator, shape.joint_dim)
        self.experts = Experts(shape.hidden, settings.rank, settings.experts, shape.classes, generator)
        self.router = linear(shape.hidden, settings.experts, generator)

    def mixture(self, inputs: Inputs, generator: Generator | None) -> tuple[Tensor, Routing]:
        """Scores (B, C) and what the router decided."""
        h = self.encoder(inputs.t, inputs.v, generator, inputs.k)
        # One expert's weight made to sum to 1 would be the constant 1 and teach the router nothing (Switch keeps the probability).
        routing = route(self.router(h), self.settings.top_k, renormalize=self.settings.top_k > 1)
        return self.experts.sparse(h, routing), routing

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Cross-entropy and the router's two losses."""
        scores, routing = self.mixture(posts.inputs(rows), generator)
        parts = {"factual": cross_entropy(scores, posts.labels[rows]).mean(), "balance": load_balance(routing), "z": z_loss(routing)}
        return {"loss": parts["factual"] + self.settings.balance * parts["balance"] + self.settings.z * parts["z"], **parts}

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Scores of the mixture."""
        return self.mixture(inputs, generator)[0]

    def answer(self, inputs: Inputs) -> Answer:
        """The mixture, and beside it the weights of the experts."""
        scores, routing = self.mixture(inputs, None)
        return Answer(p=scores.softmax(-1), experts=dense_weights(routing))
