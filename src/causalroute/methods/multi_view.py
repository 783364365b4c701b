"""Multi-view fusion, as in Multi-view CLIP (Qin et al. 2023): a text view, an image view and a joint view are trained each and summed.

    L = CE(z_t) + CE(z_v) + CE(z_k),   p = (softmax z_t + softmax z_v + softmax z_k) / 3

z_k joint scores, z_t and z_v unimodal scores; one hidden layer each.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import base
from causalroute.methods.base import Inputs, Posts, Shape
from causalroute.methods.branches import branch
from causalroute.model.layers import Predictor
from causalroute.model.losses import cross_entropy

EDITOR = None


@section
class Settings:
    """None: the budget is `train`."""


class Method(base.Method):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.joint = Predictor(shape.text_dim, shape.image_dim, shape.classes, shape.hidden, shape.dropout, generator, shape.joint_dim)
        self.text, self.image = branch("text", shape, generator), branch("image", shape, generator)

    def views(self, inputs: Inputs, generator: Generator | None) -> Tensor:
        """z_k, z_t, z_v: (3, B, C)."""
        return torch.stack([self.joint(inputs.t, inputs.v, generator, inputs.k), self.text(inputs.t, generator), self.image(inputs.v, generator)])

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Sum of the three cross-entropies."""
        ce = cross_entropy(self.views(posts.inputs(rows), generator), posts.labels[rows]).mean(1)
        return {"loss": ce.sum(), "joint": ce[0], "text": ce[1], "image": ce[2]}

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Log of the mean probability."""
        return self.views(inputs, generator).log_softmax(-1).logsumexp(0)
