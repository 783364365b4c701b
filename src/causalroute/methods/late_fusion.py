"""Empirical risk minimisation, late fusion: each side judges alone and the two are averaged.

    z = (z_t + z_v) / 2,   L = CE(z)

z_t, z_v scores of one hidden layer per side, trained jointly. An additive score cannot express an exclusive-or of the two sides.
"""

from __future__ import annotations

from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import base
from causalroute.methods.base import Inputs, Shape
from causalroute.methods.branches import branch

EDITOR = None


@section
class Settings:
    """None: the budget is `train`."""


class Method(base.Method):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.text, self.image = branch("text", shape, generator), branch("image", shape, generator)

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Mean of the unimodal scores."""
        return (self.text(inputs.t, generator) + self.image(inputs.v, generator)) / 2
