"""Networks that see one side each beside one that sees both: a shared part of several methods, not a method.

    z_k = f(t, v),   z_t = f_T(t),   z_v = f_V(v)                        one hidden layer each; `model.fusion` puts them together

Letters: B batch, C classes, S sides looked at.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from causalroute.config import section
from causalroute.methods import base
from causalroute.methods.base import Inputs, Shape
from causalroute.model.layers import Branch, Predictor

Bias = Literal["text", "image", "both"]
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


def match(direct: Tensor, fused: Tensor) -> Tensor:
    """KL(p_fused || p_direct), which trains the constant inside `direct` alone: both (B, C)."""
    return functional.kl_div(direct.log_softmax(-1), fused.detach().softmax(-1), reduction="batchmean")


class Biased(base.Method):
    """A joint network, which alone answers, and branches that are trained beside it and tell where it would be biased."""

    training_only: ClassVar[tuple[str, ...]] = ("bias.",)

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.network = Predictor(shape.text_dim, shape.image_dim, shape.classes, shape.hidden, shape.dropout, generator, shape.joint_dim)
        self.bias = nn.ModuleDict({side: branch(side, shape, generator) for side in SIDES[settings.bias]})

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Scores of the joint network."""
        return self.network(inputs.t, inputs.v, generator, inputs.k)

    def biased(self, inputs: Inputs, generator: Generator) -> Tensor:
        """Scores of the branches: (S, B, C)."""
        return torch.stack([net(seen(inputs, side), generator) for side, net in self.bias.items()])
