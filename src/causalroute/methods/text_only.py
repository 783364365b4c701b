"""ERM on the text side alone: one hidden layer, the other side is never seen."""

from __future__ import annotations

from typing import ClassVar

from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import base, branches
from causalroute.methods.base import Inputs, Shape

EDITOR = None


@section
class Settings:
    """None: the budget is `train`."""


class Method(base.Method):
    """See the module."""

    side: ClassVar[str] = "text"

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.network = branches.branch(self.side, shape, generator)

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Scores of the network."""
        return self.network(branches.seen(inputs, self.side), generator)
