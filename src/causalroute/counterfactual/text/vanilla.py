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

from causalroute.counterfactual import heads
from causalroute.counterfactual.posts import Posts
from causalroute.rng import torch_generator

STEPS, DECAY = 300, 1e-1
"""Steps and weight decay."""
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
        a = heads.standardised(torch.from_numpy(own), self.own)
        b = torch.zeros(len(own), len(self.other[0])) if other is None else heads.standardised(torch.from_numpy(other), self.other)
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
    scales = [heads.scale_of(x) for x in (a, b)]
    a, b = (heads.standardised(x, scale) for x, scale in zip((a, b), scales, strict=True))
    labels, source = torch.from_numpy(posts.labels[rows]), torch_generator(seed, "vanilla fusion")

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        drawn = torch.randint(len(rows), (heads.BATCH,), generator=source)
        seen = torch.rand(heads.BATCH, 1, generator=source) >= DROPPED
        return torch.cat([a[drawn], b[drawn] * seen], 1), labels[drawn]

    return Vanilla(heads.fit(a.shape[1] + b.shape[1], posts.classes, batch, STEPS, DECAY, source), scales[0], scales[1])
