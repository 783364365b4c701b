"""Which shortcuts agree with the label of a post, judged without shortcut labels: a shared part of several methods, not a method.

    group = 4 y + 2 [argmax_c p(c | t) / p(c) = y] + [argmax_c p(c | v) / p(c) = y]

A shortcut "agrees" when one side alone speaks for the label more than for any other class, relative to the class prior; a train post is judged by
the probe of the fold that left it out, a validation post by the mean of all.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from causalroute.methods.base import Posts
from causalroute.model.context import cross_fit

CELLS = 4
"""groups per class: both agree (3), the text alone (2), the image alone (1), none (0)"""


def judged(posts: Posts, *, folds: int, hidden: int, generator: Generator, valid: bool = False) -> Tensor:
    """Group of every train post, and of the validation posts where `valid`; (N,) int64, -1 elsewhere."""
    train, held = posts.train, posts.valid
    y = posts.labels
    found = torch.full((len(y),), -1)
    found[train] = y[train]
    if valid:
        found[held] = y[held]
    for side in ("t", "v"):
        x = posts.views[side]
        heads, fold = cross_fit(x[train], y[train], posts.classes, folds=folds, hidden=hidden, generator=generator)
        found[train] = 2 * found[train] + (heads.held_out_effects(x[train], fold, clip=float("inf")).argmax(1) == y[train])
        if valid:
            found[held] = 2 * found[held] + (heads.effects(x[held], clip=float("inf")).argmax(1) == y[held])
    return found
