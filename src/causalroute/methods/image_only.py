"""ERM on the visual side alone: one hidden layer, the other side is never seen."""

from __future__ import annotations

from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import base
from causalroute.methods.base import Inputs, Shape
from causalroute.model.layers import Branch

EDITOR = None


@section
class Settings:
    """None: the budget is `train`."""


class Method(base.Method):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.network = Branch(shape.image_dim, shape.classes, shape.hidden, shape.dropout, generator)

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Scores of the network."""
        return self.network(inputs.v, generator)
