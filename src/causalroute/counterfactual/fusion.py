"""The fusion probe: one hidden layer on [t, v], which reads labels that only text and image together tell (a linear probe cannot).

    z = W2 gelu(W1 [t, v] + b1) + b2        trained on post i with probability ~ weight_i, each side drawn anew from {real, a swap of it}

Letters: n posts, K swaps, Dt and Dv widths, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from causalroute.counterfactual.probes import Floats, Rows, standard
from causalroute.rng import substream

HIDDEN = 64
"""Units of the hidden layer."""
EPOCHS, BATCH = 20, 128
"""Passes over the posts, and posts per step."""
RATE, DECAY = 0.003, 0.05
"""Highest step and weight decay of AdamW."""


class Fusion:
    """A probe of two-sided posts: `fit`, then `read`."""

    def __init__(self, classes: int, seed: int) -> None:
        self.classes, self.seed = classes, seed

    def fit(self, text: Floats, image: Floats, labels: Rows, weight: Floats) -> Fusion:
        """Fits on real versions and swaps.

        Args:
            text: (n, 1 + K, Dt), the real version first, which is drawn half of the time; (n, 1, Dt) where nothing is swapped.
            image: (n, 1 + K, Dv) likewise.
            labels: (n,).
            weight: (n,) how often a post is drawn, in proportion.
        """
        import torch

        self._scale = [standard(side[:, 0]) for side in (text, image)]
        sides = [torch.from_numpy(((side - mean) / scale).astype(np.float32)) for side, (mean, scale) in zip((text, image), self._scale, strict=True)]
        target, maker = torch.from_numpy(labels), torch.Generator().manual_seed(substream(self.seed, "fusion probe"))
        self._model = _network(sides[0].shape[2] + sides[1].shape[2], self.classes, maker)
        steps = EPOCHS * max(1, len(labels) // BATCH)
        optimizer = torch.optim.AdamW(self._model.parameters(), lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
        drawn = torch.multinomial(torch.from_numpy(weight), steps * BATCH, replacement=True, generator=maker)
        for rows in drawn.reshape(steps, BATCH):
            x = torch.cat([side[rows, _versions(side.shape[1], maker)] for side in sides], dim=1)  # (B, Dt + Dv)
            loss = torch.nn.functional.cross_entropy(self._model(x), target[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        return self

    def read(self, text: Floats, image: Floats) -> Floats:
        """Probabilities (m, C) of posts with the features (m, Dt) and (m, Dv)."""
        import torch

        sides = [((side - mean) / scale).astype(np.float32) for side, (mean, scale) in zip((text, image), self._scale, strict=True)]
        with torch.no_grad():
            return np.asarray(self._model(torch.from_numpy(np.concatenate(sides, axis=1))).softmax(dim=1).double().numpy())


def _versions(count: int, maker: Any) -> Any:
    """Which version of a side each post of a batch shows: 0 (real) for about half of them, any swap for the others."""
    import torch

    if count == 1:
        return torch.zeros(BATCH, dtype=torch.int64)
    swap = 1 + torch.randint(count - 1, (BATCH,), generator=maker)
    return torch.where(torch.rand(BATCH, generator=maker) < 0.5, 0, swap)


def _network(width: int, classes: int, maker: Any) -> Any:
    import torch
    from torch import nn

    layers = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, classes)
    with torch.no_grad():
        for layer in layers:
            layer.weight.normal_(0, layer.in_features**-0.5, generator=maker)
            layer.bias.zero_()
    return nn.Sequential(layers[0], nn.GELU(), layers[1])
