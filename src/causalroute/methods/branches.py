"""Networks that see one side each beside one that sees both: a shared part of several methods, not a method.

    z_k = f(t, v),   z_t = f_T(t),   z_v = f_V(v)                        one hidden layer each
    h_SUM  = log sigmoid(z_k + z_t + z_v)                                 fusions of CF-VQA (Niu et al. 2021)
    h_HM   = log u - log(1 + u),  u = sigmoid(z_k) sigmoid(z_t) sigmoid(z_v)
    h_RUBi = z_k sigmoid(z_t) sigmoid(z_v)

Letters: B batch, C classes, S sides looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from causalroute.config import section
from causalroute.methods import base
from causalroute.methods.base import Inputs, Shape
from causalroute.model.layers import Branch, Predictor

Bias = Literal["text", "image", "both"]
Fusion = Literal["sum", "hm", "rubi"]
SIDES: dict[str, tuple[str, ...]] = {"text": ("text",), "image": ("image",), "both": ("text", "image")}


@section
class Settings:
    """Settings of a method whose bias model sees single sides."""

    bias: Bias = "both"
    """sides that the bias model sees, one branch each"""


def branch(side: str, shape: Shape, generator: Generator) -> Branch:
    """A network on one side alone."""
    width = shape.text_dim if side == "text" else shape.image_dim
    return Branch(width, shape.classes, shape.hidden, shape.dropout, generator)


def seen(inputs: Inputs, side: str) -> Tensor:
    """The features of one side."""
    return inputs.t if side == "text" else inputs.v


def fuse(fusion: Fusion, joint: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Fused scores of the joint branch and of the unimodal ones; all broadcast to (B, C)."""
    if fusion == "rubi":
        for z in others:
            joint = joint * torch.sigmoid(z)
        return joint
    if fusion == "sum":
        for z in others:
            joint = joint + z
        return functional.logsigmoid(joint)
    log_u = functional.logsigmoid(joint)
    for z in others:
        log_u = log_u + functional.logsigmoid(z)
    return log_u - log_u.exp().log1p()


def match(direct: Tensor, fused: Tensor) -> Tensor:
    """KL(p_fused || p_direct), which trains the constant inside `direct` alone: both (B, C)."""
    return functional.kl_div(direct.log_softmax(-1), fused.detach().softmax(-1), reduction="batchmean")


class Biased(base.Method):
    """A joint network, which alone answers, and branches that are trained beside it and tell where it would be biased."""

    training_only: ClassVar[tuple[str, ...]] = ("bias.",)

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.network = Predictor(shape.text_dim, shape.image_dim, shape.classes, shape.hidden, shape.dropout, generator)
        self.bias = nn.ModuleDict({side: branch(side, shape, generator) for side in SIDES[settings.bias]})

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Scores of the joint network."""
        return self.network(inputs.t, inputs.v, generator)

    def biased(self, inputs: Inputs, generator: Generator) -> Tensor:
        """Scores of the branches: (S, B, C)."""
        return torch.stack([net(seen(inputs, side), generator) for side, net in self.bias.items()])
