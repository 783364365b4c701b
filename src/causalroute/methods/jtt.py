"""Just train twice (Liu et al. 2021): what an early ERM gets wrong counts more.

    E = {i : argmax z_early(x_i) != y_i},   L = mean w_i CE(z(x_i)),   w_i proportional to `up` in E and to 1 elsewhere, mean 1 over the train posts

z_early is an ERM network of the same shape after a few steps, when it knows little but the shortcut; its posts are drawn with replacement. Wrong labels end up
in E as well.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import erm
from causalroute.methods.base import Posts, Shape
from causalroute.model.layers import Predictor
from causalroute.model.losses import cross_entropy
from causalroute.model.optimizer import AdamW

EDITOR = None
SEARCH = {"up": (2.0, 6.0, 20.0)}
ROWS, LR = 128, 0.001
"""Posts per step and learning rate of the early ERM."""


@section
class Settings:
    """Settings of JTT."""

    steps: int = 100
    """steps of the early ERM"""
    up: float = 6.0
    """weight of a post of the error set; 4 to 100 in the paper, 6 for CivilComments"""


class Method(erm.Method):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(erm.Settings(), shape, generator)
        self.settings = settings
        self.item_weights = torch.zeros(0)

    def prepare(self, posts: Posts, generator: Generator) -> None:
        """Trains the early ERM and weighs the train posts by its errors."""
        shape, train = self.shape, posts.train
        early = Predictor(shape.text_dim, shape.image_dim, shape.classes, shape.hidden, shape.dropout, generator, shape.joint_dim)
        optimizer = AdamW(early.parameters(), weight_decay=0.0)
        for _ in range(self.settings.steps):
            rows = train[torch.randint(len(train), (ROWS,), generator=generator)]
            inputs = posts.inputs(rows)
            optimizer.step(cross_entropy(early(inputs.t, inputs.v, generator, inputs.k), posts.labels[rows]).mean(), LR)
        inputs = posts.inputs(train)
        with torch.no_grad():
            wrong = early(inputs.t, inputs.v, k=inputs.k).argmax(1) != posts.labels[train]
        weight = torch.where(wrong, self.settings.up, 1.0)
        self.item_weights = torch.zeros(len(posts.labels)).index_copy(0, train, weight / weight.mean())

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Weighted cross-entropy."""
        ce = cross_entropy(self.scores(posts.inputs(rows), generator), posts.labels[rows])
        return {"loss": (self.item_weights[rows] * ce).mean(), "factual": ce.mean()}
