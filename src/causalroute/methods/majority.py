"""The most frequent label of the train split, with the train frequencies as probabilities."""

from __future__ import annotations

import torch
from torch import Generator

from causalroute.config import section
from causalroute.methods import base
from causalroute.methods.base import Answer, Inputs, Posts, Shape

EDITOR = None


@section
class Settings:
    """None."""


class Method(base.Method):
    """See the module."""

    gradient = False

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.frequency = torch.nn.Buffer(torch.zeros(shape.classes))

    def prepare(self, posts: Posts, generator: Generator) -> None:
        """Counts labels."""
        counts = torch.bincount(posts.labels[posts.train], minlength=posts.classes).float()
        self.frequency.copy_(counts / counts.sum())

    def answer(self, inputs: Inputs) -> Answer:
        """The same for every post."""
        return Answer(p=self.frequency.expand(len(inputs.texts), -1))
