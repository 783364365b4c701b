"""What a multimodal LLM as it is writes when it is asked for the class: no training, and no label seen but those of shots.

    p(y) = 1      y the class that its greedy reply to the first prompt names (`mllm.replies`)
    p(y) = 1/C    for every y where the reply names none, or several: it is unparsed

An unparsed reply counts as a wrong answer everywhere, and the share of them is a metric of its own (`evaluation.collect`): nothing is left out, and guessing
is not credited. A reply carries no probability, so Brier, log-loss and calibration error mean something behind temperature scaling alone. The model writes
about factual posts only. It needs a backbone of kind mllm with `generate`.

Letters: B posts, C classes.
"""

from __future__ import annotations

import torch
from torch import Generator
from torch.nn import functional

from causalroute.config import section
from causalroute.errors import UserError
from causalroute.methods import base
from causalroute.methods.base import Answer, Inputs, Posts, Shape

EDITOR = None


@section
class Settings:
    """None."""


class Method(base.Method):
    """See the module."""

    gradient = False
    asks = True
    factual_only = True

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.classes = torch.nn.Buffer(torch.tensor(shape.classes))  # a weights file has at least one tensor

    def prepare(self, posts: Posts, generator: Generator) -> None:
        """Looks whether the model wrote anything.

        Raises:
            UserError: the backbone writes no replies.
        """
        if posts.replies is None:
            fix = "choose a backbone of kind mllm with generate above 0, or leave the method out"
            raise UserError("no multimodal LLM wrote replies", where="params.yaml: backbones", fix=fix)

    def answer(self, inputs: Inputs) -> Answer:
        """The class that each reply names.

        Raises:
            UserError: there is no reply to a post.
        """
        if inputs.replies is None or (inputs.replies < -1).any():
            raise UserError("some posts have no reply", where="features/", fix="run the features stage again; posts of the train split are not replied to")
        unparsed, classes = inputs.replies < 0, self.shape.classes
        named = functional.one_hot(inputs.replies.long().clamp(min=0), classes).float()
        return Answer(p=torch.where(unparsed[:, None], torch.full_like(named, 1 / classes), named), unparsed=unparsed)
