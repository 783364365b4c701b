"""A multimodal LLM as it is, asked for the class: no training, and no label seen but those of shots.

    p(y) = softmax_y z_y                       z_y mean log-likelihood per token of the answer that stands for y, behind the prompt's question
    p(y) = softmax_y (z_y - z_y(nothing))      calibrated by the same prompt without a post (Zhao et al., 2021)

Controls see the text alone or the image alone. Every effect is shown beside the answer (`model.effects`, form I: the model is shown the contexts). It needs
a backbone of kind mllm with `zero_shot`.

Letters: B posts, V prompts, C classes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from causalroute.config import section
from causalroute.errors import UserError
from causalroute.methods import base
from causalroute.methods.base import Answer, Inputs, Posts, Shape, Told
from causalroute.model.effects import effect

EDITOR = None


@section
class Settings:
    """Settings of a zero-shot row."""

    prompt: int = 0
    """number of the prompt among those of the backbone; -1: the mean log-probability over all of them"""
    calibrate: bool = False
    """take away what the model answers without a post"""
    sees: Literal["both", "text", "image"] = "both"
    """sides that are shown"""


class Method(base.Method):
    """See the module."""

    gradient = False
    asks = True

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.classes = torch.nn.Buffer(torch.tensor(shape.classes))  # a weights file has at least one tensor

    def prepare(self, posts: Posts, generator: Generator) -> None:
        """Looks whether the model was asked.

        Raises:
            UserError: the backbone scores no answers, or has fewer prompts.
        """
        if not posts.scores:
            fix = "choose a backbone of kind mllm with zero_shot: true, or leave the method out"
            raise UserError("no answers of a multimodal LLM were scored", where="params.yaml: backbones", fix=fix)
        prompts = next(iter(posts.scores.values())).shape[-2]
        if self.settings.prompt >= prompts:
            raise UserError(f"prompt {self.settings.prompt} is asked for, of {prompts}", where="params.yaml: methods", fix="numbers begin at 0")

    def chosen(self, z: Tensor | None) -> Tensor:
        """Scores (..., C) of the chosen prompt, or over all, from log-likelihoods (..., V, C)."""
        if z is None:
            raise ValueError("the model was not asked about this view")
        return z.log_softmax(-1).mean(-2) if self.settings.prompt < 0 else z[..., self.settings.prompt, :]

    def told(self, inputs: Inputs) -> Told:
        """What the model answered."""
        if inputs.told is None:
            raise UserError("no answers of a multimodal LLM were scored", where="params.yaml: backbones", fix="run the features stage again")
        return inputs.told

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Class scores (B, C)."""
        told = self.told(inputs)
        z = self.chosen({"both": told.pair, "text": told.text, "image": told.image}[self.settings.sees])
        return z - self.chosen(told.nothing) if self.settings.calibrate else z

    def answer(self, inputs: Inputs) -> Answer:
        """The prediction and, where the contexts were shown, the effects."""
        told, p = self.told(inputs), self.scores(inputs).softmax(-1)
        if told.contexts is None or self.settings.sees != "both":
            return Answer(p=p)
        nothing = self.chosen(told.nothing).log_softmax(-1)
        seen = {"te": told.pair, "nde_t": told.text_context, "nde_v": told.image_context, "nde_tv": told.contexts}
        return Answer(p=p, **{name: effect(self.chosen(z), nothing) for name, z in seen.items()})
