"""Training on context swaps: a shared part of several methods, not a method.

    L = [CE(x) + r (ok_T CE(x_T) + ok_V CE(x_V) + ok_T ok_V CE(x_TV))] / sum of weights

x_T, x_V, x_TV: the post with the text, visual or both contexts of an item of another class; ok: the editor accepted the swap; r ramps from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods.base import Inputs, Method, Posts, Shape
from causalroute.model.layers import Predictor
from causalroute.model.losses import cross_entropy, ramp, swap_weights, weighted_mean
from causalroute.model.view import View


@section
class Settings:
    """Settings of the swap methods."""

    ramp_start: float = 0.1
    """share of steps before the swap terms set in"""
    ramp_end: float = 0.4
    """share of steps from which they count fully"""


@dataclass(frozen=True)
class Batch:
    """Posts `rows` (B,), each with its own view and one swap of every side: the first axis of t (2, B, Dt) and v (2, B, Dv)."""

    posts: Posts
    rows: Tensor
    picks: tuple[Tensor, Tensor]
    """(B,) numbers of the swaps of the text and of the image"""
    t: Tensor
    v: Tensor
    k: Tensor | None
    """(2, 2, B, Dk), where there are joint features: first axis the text own or swapped, second the image"""

    @property
    def own(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """t, v and k of the posts as they are."""
        return self.t[0], self.v[0], None if self.k is None else self.k[0, 0]


def drawn(posts: Posts, rows: Tensor, generator: Generator) -> Batch:
    """The posts `rows` with a random swap of each side."""
    text, image = (torch.randint(posts.views[name].shape[1], (len(rows),), generator=generator) for name in ("t_swap", "v_swap"))
    t, v = (torch.stack([posts.views[own][rows], posts.views[f"{own}_swap"][rows, picks]]) for own, picks in (("t", text), ("v", image)))
    return Batch(posts, rows, (text, image), t, v, _joint(posts.views, rows, text, image) if "k" in posts.views else None)


def own_and_swapped(posts: Posts, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor | None]:
    """t, v and k of `drawn`."""
    batch = drawn(posts, rows, generator)
    return batch.t, batch.v, batch.k


def _joint(views: Mapping[str, View], rows: Tensor, text: Tensor, image: Tensor) -> Tensor:
    """Of the swaps number `text` and `image`, both (B,): (2, 2, B, Dk)."""
    pairs = [views["k"][rows], views["k_swap_v"][rows, image], views["k_swap_t"][rows, text], views["k_swap_tv"][rows, text, image]]
    return torch.stack(pairs).unflatten(0, (2, 2))


class SwapMethod(Method):
    """One predictor on x and its swaps; subclasses name the `sides` that are swapped."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.network = Predictor(shape.text_dim, shape.image_dim, shape.classes, shape.hidden, shape.dropout, generator, shape.joint_dim)

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Scores of the network."""
        return self.network(inputs.t, inputs.v, generator, inputs.k)

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Weighted mean of the cross-entropies over the grid of views."""
        t, v, k = own_and_swapped(posts, rows, generator)
        text = posts.text_ok[rows].float() * ("text" in self.sides)
        image = posts.image_ok[rows].float() * ("image" in self.sides)
        strength = ramp(progress, self.settings.ramp_start, self.settings.ramp_end)
        weights = swap_weights(text, image, text * image, strength)
        ce = cross_entropy(self.network.grid(t, v, generator, k), posts.labels[rows])  # (2, 2, B)
        return {"loss": weighted_mean(ce, weights), "factual": ce[0, 0].mean()}
