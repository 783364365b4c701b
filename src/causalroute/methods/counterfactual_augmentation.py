"""Counterfactual augmentation only: the accepted swaps are further training posts, nothing else.

    L = mean CE(x'),   x' drawn evenly from those of x, x_T, x_V, x_TV that the editor accepted

One view per post and step: as many examples per step as ERM sees. No ramp and no weights.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import erm
from causalroute.methods.base import Posts
from causalroute.methods.swapping import own_and_swapped
from causalroute.model.losses import cross_entropy, swap_weights

EDITOR = "dataset"


@section
class Settings:
    """None: the budget is `train`."""


class Method(erm.Method):
    """See the module."""

    sides = ("text", "image")

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Cross-entropy of one view of each post."""
        t, v, k = own_and_swapped(posts, rows, generator)
        text_ok, image_ok = posts.text_ok[rows].float(), posts.image_ok[rows].float()
        allowed = swap_weights(text_ok, image_ok, text_ok * image_ok, 1.0).flatten(0, 1).T  # (B, 4): x, x_V, x_T, x_TV
        view = torch.multinomial(allowed, 1, generator=generator)[:, 0]
        items, text, image = torch.arange(len(rows)), view // 2, view % 2
        scores = self.network(t[text, items], v[image, items], generator, None if k is None else k[text, image, items])
        return {"loss": cross_entropy(scores, posts.labels[rows]).mean()}
