"""Invariant risk minimisation, IRMv1 (Arjovsky et al. 2019): one classifier that is the best one in every environment.

    L = mean_e [ R_e + r penalty g_e^2 ],   R_e = mean CE(z),   g_e = d R_e(w z) / dw at w = 1 = mean sum_c z_c (p_c - [c = y])

means over the environments in the batch and over their posts; p = softmax z, r ramps from 0 to 1. Environments: (text shortcut agrees) x (visual shortcut
agrees), judged by cross-fitted probes (grouping.py), as in inferred environments (Creager et al. 2021): in one the shortcut helps, in another it misleads.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional

from causalroute.config import section
from causalroute.methods import erm, grouping
from causalroute.methods.base import Posts, Shape
from causalroute.model.losses import cross_entropy, ramp

EDITOR = None
SEARCH = {"penalty": (1.0, 10.0, 100.0)}


@section
class Settings:
    """Settings of IRM."""

    penalty: float = 100.0
    """weight of the squared gradients"""
    ramp_start: float = 0.1
    """share of steps before the penalty sets in"""
    ramp_end: float = 0.4
    """share of steps from which it counts fully"""
    folds: int = 4
    """cross-fitting folds of the probes"""
    probe_hidden: int = 32
    """hidden units of the probes"""


class Method(erm.Method):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(erm.Settings(), shape, generator)
        self.settings = settings
        self.environments = torch.zeros(0, dtype=torch.int64)

    def prepare(self, posts: Posts, generator: Generator) -> None:
        """Judges every train post by probes that have not seen it."""
        groups = grouping.judged(posts, folds=self.settings.folds, hidden=self.settings.probe_hidden, generator=generator)
        self.environments = groups % grouping.CELLS

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Mean risk and mean penalty of the environments."""
        y = posts.labels[rows]
        z = self.scores(posts.inputs(rows), generator)
        ce = cross_entropy(z, y)
        slope = (z * (z.softmax(-1) - functional.one_hot(y, z.shape[1]))).sum(-1)
        member = functional.one_hot(self.environments[rows], grouping.CELLS).to(z.dtype)  # (B, 4)
        size = member.sum(0)
        risk, gradient = (torch.stack([ce, slope]) @ member) / size.clamp(min=1)
        present = (size > 0).sum()
        strength = self.settings.penalty * ramp(progress, self.settings.ramp_start, self.settings.ramp_end)
        parts = {"risk": risk.sum() / present, "penalty": gradient.square().sum() / present}
        return {"loss": parts["risk"] + strength * parts["penalty"], **parts, "factual": ce.mean()}
