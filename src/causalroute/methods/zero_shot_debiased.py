"""Training-free debiasing of a multimodal LLM: the same question with nothing but the contexts shown, and what it answers then taken away.

    S = z(t, v) - z(nothing) - w (z(t_s, v_s) - z(nothing)) = TE - w NDE_TV          w = 1: the total indirect effect TIE

z as in `zero_shot`; t_s and v_s are the contexts of the post itself, also where it is looked at with a swapped one: then S = TE - w NDE_TV of that view is
not its TIE. The strength w is a setting; a search on validation posts may choose it, which looks like train and may prefer none.
"""

from __future__ import annotations

from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import zero_shot
from causalroute.methods.base import Inputs, Shape

EDITOR = "dataset"
SEARCH = {"strength": (0.5, 1.0, 2.0)}


@section
class Settings:
    """Settings of the training-free debiasing."""

    prompt: int = 0
    """as in `zero_shot`"""
    strength: float = 1.0
    """w: how much of the contexts' direct effect is taken away"""


class Method(zero_shot.Method):
    """See the module."""

    sides = ("text", "image")

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(zero_shot.Settings(prompt=settings.prompt, calibrate=True), shape, generator)
        self.strength = settings.strength

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """S."""
        told = self.told(inputs)
        return super().scores(inputs) - self.strength * (self.chosen(told.contexts) - self.chosen(told.nothing))
