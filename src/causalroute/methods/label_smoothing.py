"""ERM with label smoothing (Szegedy et al. 2016).

    L = CE(z, (1 - s) [y] + s / C)

s smoothing, C classes, [y] the one-hot label.
"""

from __future__ import annotations

from torch import Generator, Tensor
from torch.nn import functional

from causalroute.config import section
from causalroute.methods import erm
from causalroute.methods.base import Posts, Shape

EDITOR = None
SEARCH = {"smoothing": (0.05, 0.1, 0.2)}


@section
class Settings:
    """Settings of label smoothing."""

    smoothing: float = 0.1
    """probability spread evenly over all classes"""


class Method(erm.Method):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(erm.Settings(), shape, generator)
        self.settings = settings

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Cross-entropy against the smoothed labels."""
        scores = self.scores(posts.inputs(rows), generator)
        return {"loss": functional.cross_entropy(scores, posts.labels[rows], label_smoothing=self.settings.smoothing)}
