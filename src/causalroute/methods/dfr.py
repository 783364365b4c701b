"""Deep feature reweighting (Kirichenko et al. 2023): ERM, then its last layer fitted anew on held-out posts in which all groups weigh the same.

    W, b minimise  sum_i w_i CE(W h_i + b, y_i) + |W|^2 / (2 c) (two classes: / c),   w_i = N / (G n_{g(i)})

h hidden layer of the ERM network, standardised on train; i a validation post, N of them in G groups of n_g. The authors hold out group labels; here groups are
label x (text shortcut agrees) x (visual shortcut agrees), judged by cross-fitted probes (grouping.py), and the posts are those that also select the epoch.
They draw balanced subsets and penalise |W|_1; weights give the same balance without a draw.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import erm, grouping
from causalroute.methods.base import Inputs, Posts, Shape
from causalroute.methods.logistic import per_class
from causalroute.model.layers import linear

EDITOR = None


@section
class Settings:
    """Settings of DFR."""

    c: float = 0.01
    """inverse strength of the penalty on the new layer; validation accuracy cannot choose it, for the layer is fitted there"""
    folds: int = 4
    """cross-fitting folds of the probes"""
    probe_hidden: int = 32
    """hidden units of the probes"""


def balance(groups: Tensor) -> Tensor:
    """Weights (N,), mean 1, that give every group that occurs the same share."""
    _, member, sizes = groups.unique(return_inverse=True, return_counts=True)
    return len(groups) / (len(sizes) * sizes[member])


class Method(erm.Method):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(erm.Settings(), shape, generator)
        self.settings = settings
        self.last = linear(shape.hidden, shape.classes, generator).requires_grad_(False)
        self.groups = torch.zeros(0, dtype=torch.int64)

    def prepare(self, posts: Posts, generator: Generator) -> None:
        """Judges every post by probes that have not seen it."""
        self.groups = grouping.judged(posts, folds=self.settings.folds, hidden=self.settings.probe_hidden, generator=generator, valid=True)

    def hidden(self, inputs: Inputs) -> Tensor:
        """What the last layer sees: (B, H)."""
        h: Tensor = self.network.encoder(inputs.t, inputs.v, k=inputs.k)
        return h

    def settle(self, posts: Posts) -> None:
        """Fits the last layer on the validation posts."""
        from sklearn.linear_model import LogisticRegression

        held = posts.valid
        seen, x = (self.hidden(posts.inputs(rows)) for rows in (posts.train, held))
        mean, std = seen.mean(0), seen.std(0, correction=0).clamp_min(1e-6)
        weights = balance(self.groups[held])
        fit = LogisticRegression(C=self.settings.c, max_iter=1000)
        fit.fit(((x - mean) / std).double().numpy(), posts.labels[held].numpy(), sample_weight=weights.double().numpy())
        weight, bias = per_class(fit, posts.classes)
        self.last.weight.copy_(weight / std)
        self.last.bias.copy_(bias - (weight / std) @ mean)

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Scores of the new last layer; in training those of the network's own."""
        if generator is not None:
            return super().scores(inputs, generator)
        return self.last(self.hidden(inputs))
