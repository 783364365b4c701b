"""Empirical risk minimisation, early fusion: one hidden layer on the concatenated features, plain cross-entropy."""

from __future__ import annotations

from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import base
from causalroute.methods.base import Inputs, Shape
from causalroute.model.layers import Predictor

EDITOR = None


@section
class Settings:
    """None: the budget is `train`."""


class Method(base.Method):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.network = Predictor(shape.text_dim, shape.image_dim, shape.classes, shape.hidden, shape.dropout, generator, shape.joint_dim)

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Scores of the network."""
        return self.network(inputs.t, inputs.v, generator, inputs.k)
