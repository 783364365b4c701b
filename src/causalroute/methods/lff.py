"""Learning from failure (Nam et al. 2020): what a deliberately biased network finds hard counts more.

    L   = mean GCE_q(b(x)) + mean w CE(d(x)),   w = B / (B + D)
    B_i <- m B_i + (1 - m) CE(b(x_i)) at every visit (the first takes the loss itself), divided by the largest B of the label; D likewise from d

b biased and d debiased network, both one hidden layer on the concatenation; GCE generalised cross-entropy (1 - p_y^q) / q; i an item; the answer is d. The
moving averages and the maxima per class follow the authors' code. The method rests on b learning the shortcut first. Where b soon learns the core as well, w
goes to 0 on nearly all items, and d sees only what b cannot fit: where labels are wrong, mostly those, so that it loses accuracy everywhere. A smaller q or a
longer memory softens that.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import erm
from causalroute.methods.base import Posts, Shape
from causalroute.model.layers import Predictor
from causalroute.model.losses import cross_entropy, generalized_cross_entropy

EDITOR = None
SEARCH = {"q": (0.3, 0.7), "momentum": (0.7, 0.9)}


@section
class Settings:
    """Settings of learning from failure."""

    q: float = 0.7
    """how strongly the biased network prefers what is easy"""
    momentum: float = 0.7
    """of the moving averages of the losses"""


class Method(erm.Method):
    """See the module."""

    training_only = ("biased.", "averages", "seen")

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(erm.Settings(), shape, generator)
        self.settings = settings
        self.biased = Predictor(shape.text_dim, shape.image_dim, shape.classes, shape.hidden, shape.dropout, generator, shape.joint_dim)
        self.averages = torch.nn.Buffer(torch.zeros(2, 0))  # biased, debiased; (2, N)
        self.seen = torch.nn.Buffer(torch.zeros(0))

    def prepare(self, posts: Posts, generator: Generator) -> None:
        """One moving average per network and item."""
        count = len(posts.labels)
        self.averages, self.seen = torch.nn.Buffer(torch.zeros(2, count)), torch.nn.Buffer(torch.zeros(count))

    def difficulty(self, losses: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        """Takes the losses (2, B) of the items `rows` into the averages; B and D of these items, (2, B). `labels` (N,) of all items."""
        m = self.settings.momentum
        self.averages[:, rows] = m * self.averages[:, rows] + (1 - m * self.seen[rows]) * losses
        self.seen[rows] = 1.0
        known = labels.clamp(min=0).expand(2, -1)  # an item that is not trained on keeps the average 0, which no maximum shows
        largest = losses.new_zeros(2, self.shape.classes).scatter_reduce(1, known, self.averages, "amax")
        return self.averages[:, rows] / largest[:, labels[rows]].clamp_min(1e-8)

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """The biased network's loss and the weighted one of the other."""
        inputs, y = posts.inputs(rows), posts.labels[rows]
        scores = torch.stack([self.biased(inputs.t, inputs.v, generator, inputs.k), self.scores(inputs, generator)])
        ce = cross_entropy(scores, y)
        with torch.no_grad():
            biased, debiased = self.difficulty(ce, rows, posts.labels)
            weight = biased / (biased + debiased + 1e-8)
        parts = {"biased": generalized_cross_entropy(scores[0], y, self.settings.q).mean(), "debiased": (weight * ce[1]).mean()}
        return {"loss": parts["biased"] + parts["debiased"], **parts, "factual": ce[1].mean()}
