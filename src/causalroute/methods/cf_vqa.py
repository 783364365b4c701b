"""CF-VQA (Niu et al. 2021) with text as the question: counterfactual inference by subtraction at test time.

    h(z_k, z_t, z_v) = log sigmoid(z_k + z_t + z_v)                                  SUM fusion
    L   = CE(h(z_k, z_t, z_v)) + CE(z_t) + CE(z_v) + KL(p_all || p_T)                 the KL trains only the constant c
    TIE = h(z_k, z_t, z_v) - h(c, z_t, c)                                            subtract: text, as published
    TIE = h(z_k, z_t, z_v) - h(c, z_t, z_v)                                          subtract: both

z_k joint branch, z_t and z_v unimodal branches, c one learnable constant for "no treatment".
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional

from causalroute.config import section
from causalroute.methods import base
from causalroute.methods.base import Inputs, Posts, Shape
from causalroute.model.layers import Branch, Predictor
from causalroute.model.losses import cross_entropy

EDITOR = None


@section
class Settings:
    """Settings of CF-VQA."""

    subtract: Literal["text", "both"] = "text"
    """which direct effect is taken away: of the text (as published) or of both sides"""


class Method(base.Method):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        size = (shape.classes, shape.hidden, shape.dropout, generator)
        self.joint = Predictor(shape.text_dim, shape.image_dim, *size)
        self.text, self.image = Branch(shape.text_dim, *size), Branch(shape.image_dim, *size)
        self.constant = torch.nn.Parameter(torch.zeros(()))

    def branches(self, inputs: Inputs, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """z_k, z_t, z_v, each (B, C)."""
        return self.joint(inputs.t, inputs.v, generator), self.text(inputs.t, generator), self.image(inputs.v, generator)

    def direct(self, z_t: Tensor, z_v: Tensor) -> Tensor:
        """Fusion with the joint branch, and unless `subtract` is both the visual one, untreated: (B, C)."""
        other = z_v if self.settings.subtract == "both" else self.constant
        return functional.logsigmoid(self.constant + z_t + other)

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """The four terms."""
        z_k, z_t, z_v = self.branches(posts.inputs(rows), generator)
        fused = functional.logsigmoid(z_k + z_t + z_v)
        ce = cross_entropy(torch.stack([fused, z_t, z_v]), posts.labels[rows]).mean(1)
        direct = self.direct(z_t.detach(), z_v.detach())
        kl = functional.kl_div(direct.log_softmax(-1), fused.detach().softmax(-1), reduction="batchmean")
        return {"loss": ce.sum() + kl, "factual": ce[0], "kl": kl}

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Total indirect effect."""
        z_k, z_t, z_v = self.branches(inputs, generator)
        return functional.logsigmoid(z_k + z_t + z_v) - self.direct(z_t, z_v)
