"""Training-free counterfactual subtraction, as CORSAIR (Qian et al. 2021) and TFCD do: plain ERM, whose own answers to the contexts are taken away.

    S = z(t, v) - a z(t_s, v*) - b z(t*, v_s)

z log-probabilities of the ERM network, t_s and v_s the contexts of the post, t* = v* = 0 the mean post after standardisation (an encoded empty text or image
lies farther from all posts than these from each other, where z means little), and so is the joint feature of a pair with an absent side. a and b are the pair
of the grid with the best validation accuracy, ties to the lower loss, then to the smaller. Validation looks like train, so that they may well be 0.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import erm
from causalroute.methods.base import Inputs, Posts, Shape
from causalroute.methods.clue import best_strength

EDITOR = "dataset"


@section
class Settings:
    """Settings of the training-free subtraction."""

    grid: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
    """candidates for a and for b"""


class Method(erm.Method):
    """See the module."""

    contexts = True

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(erm.Settings(), shape, generator)
        self.settings = settings
        self.strengths = torch.nn.Buffer(torch.zeros(2))

    def parts(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """z(t, v), z(t_s, v*), z(t*, v_s): (B, C) each."""
        if inputs.t_s is None or inputs.v_s is None:
            raise ValueError("the subtraction needs the context views t_s and v_s")
        mean = None if inputs.k is None else torch.zeros_like(inputs.k)
        views = ((inputs.t, inputs.v, inputs.k), (inputs.t_s, torch.zeros_like(inputs.v_s), mean), (torch.zeros_like(inputs.t_s), inputs.v_s, mean))
        z, text, image = (self.network(t, v, k=k).log_softmax(-1) for t, v, k in views)
        return z, text, image

    def settle(self, posts: Posts) -> None:
        """Chooses a and b on the validation posts."""
        rows, grid = posts.valid, torch.tensor(sorted(self.settings.grid))
        z, text, image = self.parts(posts.inputs(rows))
        pairs = torch.cartesian_prod(grid, grid)
        a, b = pairs.T[..., None, None]
        self.strengths.copy_(pairs[best_strength(z - a * text - b * image, posts.labels[rows])])

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """S; in training the network's own scores."""
        if generator is not None:
            return super().scores(inputs, generator)
        z, text, image = self.parts(inputs)
        return z - self.strengths[0] * text - self.strengths[1] * image
