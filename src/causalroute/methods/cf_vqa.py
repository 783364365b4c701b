"""CF-VQA (Niu et al. 2021) with text as the question: counterfactual inference by subtraction at test time.

    h   = log sigmoid(z_k + z_t + z_v)                                               fusion: sum
    h   = log u - log(1 + u),  u = sigmoid(z_k) sigmoid(z_t) sigmoid(z_v)             fusion: hm
    h   = z_k sigmoid(z_t), with subtract: both also times sigmoid(z_v)               fusion: rubi; the published one has no visual branch
    L   = CE(h(z_k, z_t, z_v)) + CE(z_t) + CE(z_v) + KL(p_all || p_T)                 the KL trains only the constant c
    TIE = h(z_k, z_t, z_v) - h(c, z_t, c)                                            subtract: text, as published
    TIE = h(z_k, z_t, z_v) - h(c, z_t, z_v)                                          subtract: both

z_k joint branch, z_t and z_v unimodal branches, c one learnable constant for "no treatment".
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import base
from causalroute.methods.base import Inputs, Posts, Shape
from causalroute.methods.branches import branch, match
from causalroute.model.fusion import Kind, fuse
from causalroute.model.layers import Predictor
from causalroute.model.losses import cross_entropy

EDITOR = None
SEARCH = {"fusion": ("sum", "hm", "rubi")}


@section
class Settings:
    """Settings of CF-VQA."""

    subtract: Literal["text", "both"] = "text"
    """which direct effect is taken away: of the text (as published) or of both sides"""
    fusion: Kind = "sum"
    """how the branches are put together"""


class Method(base.Method):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.joint = Predictor(shape.text_dim, shape.image_dim, shape.classes, shape.hidden, shape.dropout, generator, shape.joint_dim)
        self.text = branch("text", shape, generator)
        self.image = None if settings.fusion == "rubi" and settings.subtract == "text" else branch("image", shape, generator)
        self.constant = torch.nn.Parameter(torch.zeros(()))

    def branches(self, inputs: Inputs, generator: Generator | None) -> tuple[Tensor, ...]:
        """z_k, z_t and, where there is that branch, z_v, each (B, C)."""
        found = (self.joint(inputs.t, inputs.v, generator, inputs.k), self.text(inputs.t, generator))
        return found if self.image is None else (*found, self.image(inputs.v, generator))

    def direct(self, *single: Tensor) -> Tensor:
        """Fusion with the joint branch, and unless `subtract` is both the visual one, untreated: z_t, z_v -> (B, C)."""
        others = single if self.settings.subtract == "both" else (single[0], *(self.constant for _ in single[1:]))
        return fuse(self.settings.fusion, self.constant, *others)

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """The four terms."""
        z_k, *single = self.branches(posts.inputs(rows), generator)
        fused = fuse(self.settings.fusion, z_k, *single)
        ce = cross_entropy(torch.stack([fused, *single]), posts.labels[rows]).mean(1)
        kl = match(self.direct(*(z.detach() for z in single)), fused)
        return {"loss": ce.sum() + kl, "factual": ce[0], "kl": kl}

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Total indirect effect."""
        z_k, *single = self.branches(inputs, generator)
        return fuse(self.settings.fusion, z_k, *single) - self.direct(*single)
