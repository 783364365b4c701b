"""CLUE (Sun et al. 2022): a fused score less what one side alone makes of it; a shared part of two methods, not a method.

    o1 = h(z_k, z_m),   o2 = h(c, z_m),   L = CE(o1) + CE(z_m) + KL(p_o1 || p_o2)      the KL trains only the constant c
    answer: o1 - alpha o2,   alpha the candidate with the best validation accuracy, ties to the lower loss, then to the smaller

z_k joint branch, z_m branch of the side m that is subtracted, h a fusion (model.fusion). The authors' own code chooses alpha on its test set; here it is
chosen on validation, which looks like train, so that it may well be 0.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import base
from causalroute.methods.base import Inputs, Posts, Shape
from causalroute.methods.branches import branch, match, seen
from causalroute.model.fusion import Kind, fuse
from causalroute.model.layers import Predictor
from causalroute.model.losses import cross_entropy


@section
class Settings:
    """Settings of CLUE."""

    fusion: Kind = "sum"
    """how the branches are put together"""
    alphas: tuple[float, ...] = (0.0, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0)
    """candidates for the strength of the subtraction; the one with the best validation accuracy is taken"""


def best_strength(scores: Tensor, labels: Tensor) -> int:
    """Number of the candidate with the best accuracy, ties to the lower cross-entropy, then to the first: scores (A, N, C), labels (N,)."""
    hits = (scores.argmax(-1) == labels).sum(1)
    loss = cross_entropy(scores, labels).mean(1)
    return min(range(len(scores)), key=lambda i: (-int(hits[i]), float(loss[i])))


class Clue(base.Method):
    """Joint branch and the branch of one side; subclasses name the side."""

    side: ClassVar[str]

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.joint = Predictor(shape.text_dim, shape.image_dim, shape.classes, shape.hidden, shape.dropout, generator, shape.joint_dim)
        self.single = branch(self.side, shape, generator)
        self.constant = torch.nn.Parameter(torch.zeros(()))
        self.alpha = torch.nn.Buffer(torch.zeros(()))

    def outputs(self, inputs: Inputs, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """o1, z_m: (B, C) each."""
        z = self.single(seen(inputs, self.side), generator)
        return fuse(self.settings.fusion, self.joint(inputs.t, inputs.v, generator, inputs.k), z), z

    def direct(self, z: Tensor) -> Tensor:
        """o2: what the side makes of it alone, (B, C)."""
        return fuse(self.settings.fusion, self.constant, z)

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """The three terms."""
        fused, z = self.outputs(posts.inputs(rows), generator)
        ce = cross_entropy(torch.stack([fused, z]), posts.labels[rows]).mean(1)
        kl = match(self.direct(z.detach()), fused)
        return {"loss": ce.sum() + kl, "factual": ce[0], "kl": kl}

    def settle(self, posts: Posts) -> None:
        """Chooses alpha on the validation posts."""
        rows = posts.valid
        fused, z = self.outputs(posts.inputs(rows), None)
        alphas = torch.tensor(sorted(self.settings.alphas))
        self.alpha.copy_(alphas[best_strength(fused - alphas[:, None, None] * self.direct(z), posts.labels[rows])])

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """o1 - alpha o2."""
        fused, z = self.outputs(inputs, generator)
        return fused - self.alpha * self.direct(z)
