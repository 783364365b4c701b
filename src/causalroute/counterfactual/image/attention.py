"""Core masks found by gradient x attention (Chefer et al., Generic Attention-model Explainability, 2021): where does the answer to this text look?

    A_l = mean over heads of |a_l * d(u . h(x)) / d a_l|        a_l attention weights of layer l, (T, T)
    R   = I;  R <- R + A_l R  for each layer from the first to the last

The heat of patch p is how much of it reaches the tokens that are pooled: the mean of R over the rows whose attention in the last layer has any gradient
(the class token's alone where it is what is pooled, else all).
u and h(x) are those of `answers.py`. Only attention that is written out can be read, so the tower runs with `eager` attention: slower, equal but for rounding.
"""

from __future__ import annotations

import threading
from typing import Any

import torch

from causalroute.counterfactual.image.answers import Answers
from causalroute.counterfactual.image.maps import Heat
from causalroute.errors import UserError


def heat_of(answers: Answers) -> Heat:
    """Heat of batches: (B, h, w) with one cell per patch.

    Raises:
        UserError: the image tower has no attention over patches.
    """
    backbone: Any = answers.backbone
    tower = backbone.model.vision_model if answers.shared_space else backbone.image_model
    layers = Layers(backbone.model if answers.shared_space else tower, tower)
    layers.check(backbone)

    def heat(pixels: torch.Tensor, rows: list[int]) -> torch.Tensor:
        weights = layers.weights(lambda: (answers.encode(pixels.clone().requires_grad_(True)) * answers.directions[rows]).sum())
        return _patches(rollout(weights))

    return heat


class Layers:
    """Reads the attention weights of a tower while it runs; each thread has its own.

    Args:
        model: takes the setting `eager` (the whole model of a dual encoder).
        tower: the part that sees the image.
    """

    def __init__(self, model: Any, tower: Any) -> None:
        self.seen = threading.local()
        if hasattr(model, "set_attn_implementation"):
            model.set_attn_implementation("eager")
        for module in tower.modules():
            module.register_forward_hook(self._keep)

    def _keep(self, module: Any, inputs: Any, output: Any) -> None:
        """Attention modules answer with (hidden, weights); a module around one answers with the same weights."""
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, torch.Tensor) and weights.dim() == 4 and weights.shape[-1] == weights.shape[-2]:
            found = self.seen.__dict__.setdefault("found", [])
            if not any(weights is other for other in found):
                found.append(weights)

    def weights(self, answer: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Attention (B, heads, T, T) of each layer and the gradient of the scalar `answer()` with respect to it, first layer first."""
        self.seen.found = []
        with torch.enable_grad():
            scalar = answer()
            found = [weights for weights in self.seen.found if weights.requires_grad]
            self.seen.found = []
            gradients = torch.autograd.grad(scalar, found) if found else ()
        return [(weights.detach(), gradient) for weights, gradient in zip(found, gradients, strict=True)]

    def check(self, backbone: Any) -> None:
        """Raises a UserError where there is nothing to read."""
        from PIL import Image

        blank = backbone.preprocess(Image.new("RGB", (64, 64)))[None]
        if not self.weights(lambda: backbone.encode_images(blank.clone().requires_grad_(True)).sum()):
            raise UserError(
                "the image editor 'attention' needs a vision transformer, and the image tower of this backbone has no attention that could be read",
                where="editors: image",
                fix="use 'saliency' or 'occlusion', or a backbone with a vision transformer (CLIP, SigLIP, ViT)",
            )


def rollout(weights: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """What reaches the pooled tokens from each token: (B, T)."""
    count, _, tokens, _ = weights[0][0].shape
    own = torch.eye(tokens).expand(count, tokens, tokens)
    relevance, layer = own, own
    for attention, gradient in weights:
        layer = (attention * gradient).abs().mean(1)
        relevance = relevance + layer @ relevance  # (B, T, T)
    pooled = (layer.sum(2, keepdim=True) > 0).float()  # (B, T, 1): rows of the last layer that the answer hangs on
    return ((relevance - own) * pooled).sum(1) / pooled.sum(1).clamp(min=1)


def _patches(reached: torch.Tensor) -> torch.Tensor:
    """(B, T) -> (B, h, w): tokens in front of the last square number of them are no patches."""
    count, tokens = reached.shape
    side = int(tokens**0.5)
    return reached[:, tokens - side * side :].reshape(count, side, side)
