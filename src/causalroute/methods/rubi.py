"""RUBi (Cadene et al. 2019): a mask from single sides makes easy what they give away, so that the joint network spends itself on the rest.

    L = CE(z prod_m sigmoid(z_m)) + sum_m CE(W_m z_m + b_m)                    m the sides of `bias`

z scores of the joint network, which alone answers; z_m mask of the branch that sees side m alone, W_m its classifier (C, C).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from causalroute.methods.base import Posts, Shape
from causalroute.methods.branches import Biased, Settings
from causalroute.model.fusion import fuse
from causalroute.model.layers import linear
from causalroute.model.losses import cross_entropy

__all__ = ["EDITOR", "SEARCH", "Method", "Settings"]

EDITOR = None
SEARCH = {"bias": ("text", "image", "both")}


class Method(Biased):
    """See the module."""

    training_only = ("bias.", "classifiers.")

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.classifiers = nn.ModuleList([linear(shape.classes, shape.classes, generator) for _ in self.bias])

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """The masked loss and those of the classifiers behind the masks."""
        inputs, y = posts.inputs(rows), posts.labels[rows]
        z, masks = self.scores(inputs, generator), self.biased(inputs, generator)
        single = torch.stack([classifier(mask) for classifier, mask in zip(self.classifiers, masks, strict=True)])
        parts = {"masked": cross_entropy(fuse("rubi", z, *masks), y).mean(), "bias": cross_entropy(single, y).mean(1).sum()}
        return {"loss": parts["masked"] + parts["bias"], **parts}
