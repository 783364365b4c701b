"""Supervised contrastive learning with counterfactuals, in the manner of DMSD-CL (Jia et al. 2024): context swaps are further positives of their post.

    L = e CE(z) + (1 - e) mean_i 1/|P(i)| sum_{p in P(i)} w_ip (log sum_{a != i} w_ia exp(f_i . f_a / tau) - f_i . f_p / tau)
    w_ip = 1 - softmax_{p in P(i)}(f_i . f_p),   w_ia = 1 + softmax_{a of another label}(f_i . f_a)

over x, x_T, x_V and x_TV of the batch, swaps as far as the editor accepted them; f unit vectors behind a projection of the hidden layer, P(i) the other items
of the label of i, tau temperature, e the share of the cross-entropy. The weights, which make unlike positives and like negatives count more, are not
differentiated; they, .1 and .07 follow the authors' code, whose own counterfactuals are words masked at random.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from causalroute.config import section
from causalroute.methods import base
from causalroute.methods.base import Inputs, Posts, Shape
from causalroute.methods.swapping import own_and_swapped
from causalroute.model.layers import Predictor, linear
from causalroute.model.losses import cross_entropy, swap_weights

EDITOR = "dataset"
SEARCH = {"temperature": (0.07, 0.3), "ce": (0.1, 0.5)}


@section
class Settings:
    """Settings of the contrastive method."""

    ce: float = 0.1
    """share of the cross-entropy in the loss"""
    temperature: float = 0.07
    """tau"""


def contrastive(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The second term of L: unit vectors (M, F), labels (M,)."""
    similarity = features @ features.T
    equal = labels[:, None] == labels
    same, other = equal.to(features.dtype).fill_diagonal_(0.0), (~equal).to(features.dtype)
    with torch.no_grad():
        likeness = similarity.exp()
        alike, unlike = (likeness * part / (likeness * part).sum(1, keepdim=True).clamp_min(1e-30) for part in (same, other))
        weight = same * (1 - alike) + other * (1 + unlike)
        pull = same * weight / same.sum(1, keepdim=True).clamp_min(1)
    logits = similarity / temperature
    mass = (logits + weight.log().clamp_min(-1e4)).logsumexp(1)  # the item itself has weight 0; an item alone in its batch must not give -inf
    return (pull.sum(1) * mass - (pull * logits).sum(1)).mean()


class Method(base.Method):
    """See the module."""

    sides = ("text", "image")
    training_only = ("projection.",)

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.network = Predictor(shape.text_dim, shape.image_dim, shape.classes, shape.hidden, shape.dropout, generator, shape.joint_dim)
        self.projection = nn.Sequential(linear(shape.hidden, shape.hidden, generator), nn.GELU(), linear(shape.hidden, shape.hidden, generator))

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Scores of the network."""
        return self.network(inputs.t, inputs.v, generator, inputs.k)

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Both terms over all accepted views."""
        t, v, k = own_and_swapped(posts, rows, generator)
        text, image = posts.text_ok[rows].float(), posts.image_ok[rows].float()
        accepted = swap_weights(text, image, text * image, 1.0) > 0  # (2, 2, B)
        h = self.network.encoder.grid(t, v, generator, k)[accepted]
        y = posts.labels[rows].expand(2, 2, -1)[accepted]
        features = functional.normalize(self.projection(h), dim=-1)
        parts = {"ce": cross_entropy(self.network.head(h), y).mean(), "contrast": contrastive(features, y, self.settings.temperature)}
        return {"loss": self.settings.ce * parts["ce"] + (1 - self.settings.ce) * parts["contrast"], **parts}
