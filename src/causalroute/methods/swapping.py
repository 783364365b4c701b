"""Training on context swaps: a shared part of several methods, not a method.

    L = [CE(x) + r (ok_T CE(x_T) + ok_V CE(x_V) + ok_T ok_V CE(x_TV))] / sum of weights

x_T, x_V, x_TV: the post with the text, visual or both contexts of an item of another class; ok: the editor accepted the swap; r ramps from 0 to 1.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods.base import Inputs, Method, Posts, Shape
from causalroute.model.layers import Predictor
from causalroute.model.losses import cross_entropy, ramp, swap_weights, weighted_mean


@section
class Settings:
    """Settings of the swap methods."""

    ramp_start: float = 0.1
    """share of steps before the swap terms set in"""
    ramp_end: float = 0.4
    """share of steps from which they count fully"""


def own_and_swapped(posts: Posts, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Stacks each side's own view and one random swap: (2, B, Dt), (2, B, Dv)."""
    sides = []
    for own, swapped in (("t", "t_swap"), ("v", "v_swap")):
        swaps = posts.views[swapped]
        pick = torch.randint(swaps.shape[1], (len(rows),), generator=generator)
        sides.append(torch.stack([posts.views[own][rows], swaps[rows, pick]]))
    return sides[0], sides[1]


class SwapMethod(Method):
    """One predictor on x and its swaps; subclasses name the `sides` that are swapped."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.network = Predictor(shape.text_dim, shape.image_dim, shape.classes, shape.hidden, shape.dropout, generator)

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Scores of the network."""
        return self.network(inputs.t, inputs.v, generator)

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Weighted mean of the cross-entropies over the grid of views."""
        t, v = own_and_swapped(posts, rows, generator)
        text = posts.text_ok[rows].float() * ("text" in self.sides)
        image = posts.image_ok[rows].float() * ("image" in self.sides)
        strength = ramp(progress, self.settings.ramp_start, self.settings.ramp_end)
        weights = swap_weights(text, image, text * image, strength)
        ce = cross_entropy(self.network.grid(t, v, generator), posts.labels[rows])  # (2, 2, B)
        return {"loss": weighted_mean(ce, weights), "factual": ce[0, 0].mean()}
