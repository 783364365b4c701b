"""Group distributionally robust optimisation (Sagawa et al. 2020): the worst group counts most.

    q_g <- q_g exp(eta loss_g), normalised;     L = sum_g q_g loss_g / sum_g q_g over the groups in the batch

Groups: label x (the text shortcut agrees with the label?) x (the visual shortcut agrees?), 4 C of them. No shortcut labels are used: a shortcut "agrees"
when a cross-fitted probe that sees one side only speaks for the label (grouping.py).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import erm, grouping
from causalroute.methods.base import Posts, Shape
from causalroute.model.losses import cross_entropy

EDITOR = None
SEARCH = {"eta": (0.01, 0.1, 1.0)}


@section
class Settings:
    """Settings of group DRO."""

    eta: float = 0.01
    """step size of the group weights"""
    folds: int = 4
    """cross-fitting folds of the probes"""
    probe_hidden: int = 32
    """hidden units of the probes"""


class Method(erm.Method):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(erm.Settings(), shape, generator)
        self.settings = settings
        count = grouping.CELLS * shape.classes
        self.weights = torch.nn.Buffer(torch.full((count,), 1 / count))
        self.groups = torch.zeros(0, dtype=torch.int64)

    def prepare(self, posts: Posts, generator: Generator) -> None:
        """Judges every train item by probes that have not seen it."""
        self.groups = grouping.judged(posts, folds=self.settings.folds, hidden=self.settings.probe_hidden, generator=generator)

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Weighted sum of the mean losses of the groups in the batch."""
        ce = cross_entropy(self.scores(posts.inputs(rows), generator), posts.labels[rows])
        member = torch.nn.functional.one_hot(self.groups[rows], len(self.weights)).to(ce.dtype)  # (B, G)
        size = member.sum(0)
        losses = (ce @ member) / size.clamp(min=1)
        with torch.no_grad():
            self.weights.mul_((self.settings.eta * losses.detach()).exp() * (size > 0) + (size == 0))
            # A weight of exactly 0 could never grow again, and a batch of such groups alone would divide by 0.
            self.weights.div_(self.weights.sum()).clamp_(min=1e-30)
        present = self.weights * (size > 0)
        return {"loss": (losses * present).sum() / present.sum(), "factual": ce.mean()}
