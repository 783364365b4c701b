"""The vanilla fusion model f that occlusion asks: an ordinary classifier on cached features that learns whatever helps, shortcuts included.

    z(a, b) = W gelu(V [a; b])        f(a, b) = z - mean over classes of z

a: features of the side that is occluded, b: those of the other side, both standardised on the train split, so that 0 is the mean: "no treatment" (b*).
In DROPPED of the training rows b is 0: without that, f(a, b*) would be asked off its distribution, and its answer would be an accident.
Letters: N posts, Da and Db feature widths, C classes.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from causalroute.counterfactual.posts import Posts
from causalroute.rng import torch_generator

HIDDEN, STEPS, BATCH, RATE, DECAY = 64, 300, 128, 3e-3, 1e-1
"""Units, steps, posts per step, AdamW learning rate and weight decay."""
DROPPED = 0.3
"""Share of training rows that see no other side."""


@dataclasses.dataclass(frozen=True)
class Vanilla:
    """f, with the standardisation of its inputs."""

    head: torch.nn.Module
    own: tuple[torch.Tensor, torch.Tensor]
    """mean and scale (Da,) of a"""
    other: tuple[torch.Tensor, torch.Tensor]
    """mean and scale (Db,) of b"""

    @torch.no_grad()
    def score(self, own: NDArray[np.float32], other: NDArray[np.float32] | None) -> NDArray[np.float64]:
        """f of N posts: (N, C), each row sums to 0.

        Args:
            own: (N, Da) raw features a.
            other: (N, Db) raw features b; None: b* for all.
        """
        a = _standard(torch.from_numpy(own), self.own)
        b = torch.zeros(len(own), len(self.other[0])) if other is None else _standard(torch.from_numpy(other), self.other)
        scores = self.head(torch.cat([a, b], 1))
        return (scores - scores.mean(1, keepdim=True)).double().numpy()


def train(posts: Posts, own: NDArray[np.float32], other: NDArray[np.float32], seed: int) -> Vanilla:
    """f on the train split; labels of other splits are not read.

    Args:
        posts: N posts.
        own: (N, Da) features a of the posts.
        other: (N, Db) features b.
        seed: of weights and batches.
    """
    rows = np.flatnonzero(posts.train)
    a, b = (torch.from_numpy(features[rows]) for features in (own, other))
    scales = [(x.mean(0), x.std(0) + 1e-6) for x in (a, b)]
    a, b = (_standard(x, scale) for x, scale in zip((a, b), scales, strict=True))
    labels, source = torch.from_numpy(posts.labels[rows]), torch_generator(seed, "vanilla fusion")
    head = _head(a.shape[1] + b.shape[1], posts.classes, source)
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    for _ in range(STEPS):
        batch = torch.randint(len(rows), (BATCH,), generator=source)
        seen = torch.rand(BATCH, 1, generator=source) >= DROPPED
        loss = torch.nn.functional.cross_entropy(head(torch.cat([a[batch], b[batch] * seen], 1)), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Vanilla(head.requires_grad_(False), scales[0], scales[1])


def _standard(features: torch.Tensor, scale: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return (features.float() - scale[0]) / scale[1]


def _head(width: int, classes: int, source: torch.Generator) -> torch.nn.Module:
    head = torch.nn.Sequential(torch.nn.Linear(width, HIDDEN), torch.nn.GELU(), torch.nn.Linear(HIDDEN, classes))
    for weight in head.parameters():
        bound = 1 / (weight.shape[-1] ** 0.5)
        torch.nn.init.uniform_(weight, -bound, bound, generator=source)
    return head
