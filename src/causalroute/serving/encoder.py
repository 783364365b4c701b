"""The frozen backbone on a handful of inputs: no store, no padding to full batches.

A row's features differ from the cached ones by rounding alone: they are rounded to half precision like those, and batches of other sizes round otherwise.
Letters: M inputs, Dt and Dv widths.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from causalroute.config import Backbone
from causalroute.counterfactual.image.maps import square_window
from causalroute.counterfactual.views import MASK
from causalroute.errors import UserError
from causalroute.features.backbone import load_backbone
from causalroute.features.folders import library_versions
from causalroute.features.window import Window


class Encoder:
    """A backbone of kind dual_encoder or encoder_pair; `chat_encoder.ChatEncoder` is one of kind mllm.

    Args:
        settings: of the backbone.
        made_with: `key` and `versions` of the backbone that the model was trained on.

    Raises:
        UserError: the backbone cannot be loaded, or is another one.
    """

    def __init__(self, settings: Backbone, made_with: dict[str, Any]) -> None:
        self.backbone: Any = load_backbone(settings, "of the saved model")
        self.versions = library_versions()
        if getattr(self.backbone, "model_key", self.backbone.key) != made_with["key"] and self.versions == made_with["versions"]:
            named = ", ".join(filter(None, (settings.model, settings.text_model, settings.image_model)))
            fix = "name the very files it was trained on (revision, preprocessing and batch size included), or train again"
            raise UserError("the backbone is not the one that the model was trained on", where=named, fix=fix)

    @functools.cached_property
    def window(self) -> Window:
        """Part of a squeezed image that reaches the model."""
        return square_window(self.backbone)

    @property
    def longest(self) -> int:
        """Tokens of a text that are read."""
        longest: int = self.backbone.tokens.max_length
        return longest

    def texts(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """Features (M, Dt) of M texts, float32, and which of them were cut."""
        encoded = self.backbone.tokenize_many(texts)
        found: dict[int, Tensor] = {}
        for bucket in sorted({one.bucket for one in encoded}):
            rows = [row for row, one in enumerate(encoded) if one.bucket == bucket]
            for first in range(0, len(rows), self.backbone.batch_size):
                chunk = rows[first : first + self.backbone.batch_size]
                with torch.inference_mode():
                    pooled = self.backbone.encode_texts(*self.backbone.collate([encoded[row] for row in chunk]))
                found |= dict(zip(chunk, rounded(pooled), strict=True))
        full = [len(one.ids) >= self.longest for one in encoded]
        return torch.stack([found[row] for row in range(len(texts))]), [full[row] and self._longer(text) for row, text in enumerate(texts)]

    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Features (M, Dv) of M RGB images, float32."""
        found = []
        for first in range(0, len(images), self.backbone.image_batch):
            pixels = torch.stack([self.backbone.preprocess(image) for image in images[first : first + self.backbone.image_batch]])
            with torch.inference_mode():
                found.append(rounded(self.backbone.encode_images(pixels)))
        return torch.cat(found)

    def pairs(self, texts: Sequence[str], images: Sequence[Image.Image]) -> Tensor | None:
        """Joint features (M, Dk) of M texts with their images, float32; None of a backbone that reads each side alone."""
        return None

    def _longer(self, text: str) -> bool:
        """Whether a text that fills the model goes on behind its end."""
        tokens = self.backbone.tokens
        return len(tokens.tokenizer(text.replace(MASK, tokens.mask_token), verbose=False)["input_ids"]) > self.longest


def rounded(features: Tensor) -> Tensor:
    """As the feature store keeps them. A clone: tensors of inference mode cannot take part in a gradient."""
    return features.half().float().clone()
