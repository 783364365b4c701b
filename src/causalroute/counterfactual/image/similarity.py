"""Core masks found by plain likeness of patches and text, for dual encoders alone.

    s(p) = max(0, z_p . (u - g))        z_p patch token p in the shared space, unit length; u the post's core text; g the mean of GENERIC texts

The patch tokens of contrastive models were never trained to be compared with texts, only the pooled token was: what a patch holds is not what it shows
(Li et al., A Closer Look at the Explainability of CLIP, 2023). Kept to measure how much better it is to ask what the pooled answer hangs on.
"""

from __future__ import annotations

from typing import Any

import torch

from causalroute.counterfactual.image.answers import Answers, text_directions
from causalroute.counterfactual.image.maps import Heat
from causalroute.errors import UserError

GENERIC = ("a photo", "a picture", "an image", "a background", "something")
"""Texts that say nothing of a post: what is like all of them is no evidence."""


def heat_of(answers: Answers) -> Heat:
    """s(p) of batches: (B, h, w) with one cell per patch.

    Raises:
        UserError: the backbone has no space that texts and patches share.
    """
    backbone: Any = answers.backbone
    if not answers.shared_space:
        raise UserError(
            "the image editor 'similarity' compares patches with texts, and this backbone has no space for both",
            where="editors: image",
            fix="use 'saliency' or 'occlusion', or a backbone of kind dual_encoder",
        )
    wanted = answers.directions - text_directions(backbone, GENERIC).mean(0)  # (M, D)

    def heat(pixels: torch.Tensor, rows: list[int]) -> torch.Tensor:
        with torch.no_grad():
            patches = projected_patches(backbone, pixels)  # (B, P, D)
        side = round(patches.shape[1] ** 0.5)
        return (patches @ wanted[rows][:, :, None]).relu().reshape(len(rows), side, -1)

    return heat


def projected_patches(backbone: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Patch tokens sent the way of the pooled token: (B, P, D), unit length. SigLIP's last layer has no way of its own."""
    patches = backbone.image_features(pixels)[1]
    model = backbone.model
    if hasattr(model, "visual_projection"):
        patches = model.visual_projection(model.vision_model.post_layernorm(patches))
    return torch.nn.functional.normalize(patches, dim=-1)
