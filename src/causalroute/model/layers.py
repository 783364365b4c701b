"""Building blocks whose every random number comes from a generator that is handed in.

    h(t, v, k) = dropout(gelu(W_t t + W_v v + W_k k + b))   one hidden layer on the concatenation; it learns an XOR of the two sides, a linear head does not

k is what a backbone that reads both sides together says of the pair; the term is there only where there is such a feature.
Letters: B batch, Dt, Dv and Dk feature widths, H hidden units, C classes; views of a side are stacked in front: a text views, b visual views.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional


def linear(inputs: int, outputs: int, generator: Generator, *, bias: bool = True, fan_in: int | None = None) -> nn.Linear:
    """A linear layer with torch's default initialisation U(-1/sqrt(fan_in), 1/sqrt(fan_in)), drawn from `generator`."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, max(inputs, 1), max(outputs, 1), bias=bias)
    # torch warns when it builds an empty layer (a side without features), so the size is set afterwards.
    layer.in_features, layer.out_features = inputs, outputs
    layer.weight = nn.Parameter(torch.empty(outputs, inputs))
    bound = 1 / math.sqrt(max(fan_in or inputs, 1))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


def dropout(h: Tensor, rate: float, generator: Generator | None) -> Tensor:
    """Inverted dropout on (..., B, H), one mask (B, H) for all views of an item; no generator means evaluation, which changes nothing."""
    if generator is None or rate == 0:
        return h
    keep = h.new_empty(h.shape[-2:]).bernoulli_(1 - rate, generator=generator)
    return h * keep.div_(1 - rate)


class Encoder(nn.Module):
    """Joint encoder of a text and a visual feature and, with `joint_dim` > 0, of the feature of the pair."""

    def __init__(self, text_dim: int, image_dim: int, hidden: int, rate: float, generator: Generator, joint_dim: int = 0) -> None:
        super().__init__()
        self.rate = rate
        width = text_dim + image_dim + joint_dim
        self.text = linear(text_dim, hidden, generator, fan_in=width)
        self.image = linear(image_dim, hidden, generator, bias=False, fan_in=width)
        self.joint = linear(joint_dim, hidden, generator, bias=False, fan_in=width) if joint_dim > 0 else None

    def forward(self, t: Tensor, v: Tensor, generator: Generator | None = None, k: Tensor | None = None) -> Tensor:
        """t (B, Dt), v (B, Dv), k (B, Dk) or None -> (B, H)."""
        return dropout(functional.gelu(self._with_joint(self.text(t) + self.image(v), k)), self.rate, generator)

    def grid(self, t: Tensor, v: Tensor, generator: Generator | None = None, k: Tensor | None = None) -> Tensor:
        """Every text view with every visual view: t (a, B, Dt), v (b, B, Dv), k (a, b, B, Dk) or None -> (a, b, B, H); each view passes its matrix once."""
        return dropout(functional.gelu(self._with_joint(self.text(t)[:, None] + self.image(v)[None], k)), self.rate, generator)

    def _with_joint(self, sides: Tensor, k: Tensor | None) -> Tensor:
        """Adds W_k k (..., B, Dk) to what both sides say (..., B, H)."""
        if self.joint is None:
            return sides
        if k is None:
            raise ValueError(f"this encoder reads joint features of width {self.joint.in_features}, and none were given (`k`)")
        return sides + self.joint(k)


class Predictor(nn.Module):
    """Encoder and one linear layer: class scores."""

    def __init__(self, text_dim: int, image_dim: int, classes: int, hidden: int, rate: float, generator: Generator, joint_dim: int = 0) -> None:
        super().__init__()
        self.encoder = Encoder(text_dim, image_dim, hidden, rate, generator, joint_dim)
        self.head = linear(hidden, classes, generator)

    def forward(self, t: Tensor, v: Tensor, generator: Generator | None = None, k: Tensor | None = None) -> Tensor:
        """t (B, Dt), v (B, Dv), k (B, Dk) or None -> (B, C)."""
        return self.head(self.encoder(t, v, generator, k))

    def grid(self, t: Tensor, v: Tensor, generator: Generator | None = None, k: Tensor | None = None) -> Tensor:
        """t (a, B, Dt), v (b, B, Dv), k (a, b, B, Dk) or None -> (a, b, B, C)."""
        return self.head(self.encoder.grid(t, v, generator, k))


class Branch(nn.Module):
    """One hidden layer on one side alone."""

    def __init__(self, inputs: int, classes: int, hidden: int, rate: float, generator: Generator) -> None:
        super().__init__()
        self.rate = rate
        self.hidden = linear(inputs, hidden, generator)
        self.head = linear(hidden, classes, generator)

    def forward(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """(B, D) -> (B, C)."""
        return self.head(dropout(functional.gelu(self.hidden(x)), self.rate, generator))
