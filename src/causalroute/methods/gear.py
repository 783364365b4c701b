"""GEAR, general debiasing by inverse probability weighting (Sun et al. 2023), reconstructed from the abstract and the authors' code for regression.

    L   = mean w CE(z) + sum_m mean GCE_q(z_m),   w = l_b / (l_b + CE(z)),   l_b = the mean or the smallest of CE(z_m) over the sides m

z scores of the joint network, which alone answers; z_m scores of the biased branch of side m, driven to what is easy by the generalised cross-entropy
GCE = (1 - p_y^q) / q. A post that single sides explain well has a small l_b: it is biased and counts less. Left out of the authors' system: a fourth biased
network on the fused features, and swaps of biased features within a batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import branches
from causalroute.methods.base import Posts, Shape
from causalroute.model.losses import cross_entropy, generalized_cross_entropy

EDITOR = None
SEARCH = {"pool": ("mean", "min"), "q": (0.3, 0.7)}


@section
class Settings:
    """Settings of GEAR."""

    q: float = 0.7
    """how strongly the biased branches prefer what is easy"""
    pool: Literal["mean", "min"] = "mean"
    """how the losses of the biased branches become one"""


class Method(branches.Biased):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(branches.Settings(bias="both"), shape, generator)
        self.settings = settings

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """The weighted loss and those of the biased branches."""
        inputs, y = posts.inputs(rows), posts.labels[rows]
        ce, single = cross_entropy(self.scores(inputs, generator), y), self.biased(inputs, generator)
        with torch.no_grad():
            each = cross_entropy(single, y)
            biased = each.mean(0) if self.settings.pool == "mean" else each.amin(0)
            weight = biased / (biased + ce + 1e-8)
        parts = {"weighted": (weight * ce).mean(), "bias": generalized_cross_entropy(single, y, self.settings.q).mean(1).sum()}
        return {"loss": parts["weighted"] + parts["bias"], **parts, "factual": ce.mean()}
