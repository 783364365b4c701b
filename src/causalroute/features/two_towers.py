"""What encoders of texts and of images have in common: texts go through a tokenizer, images through a preprocessor, and each side through a tower."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from PIL import Image

from causalroute.features.loading import Pixels
from causalroute.features.tokens import Encoded, Tokens


class TwoTowers(ABC):
    """See `backbone.Backbone`; a subclass sets `tokens`, and `pixels` where it has an image tower."""

    tokens: Tokens
    pixels: Pixels

    def tokenize(self, text: str) -> Encoded:
        """Token ids of one text."""
        return self.tokens.many([text])[0]

    def tokenize_many(self, texts: Sequence[str]) -> list[Encoded]:
        """Token ids of each text."""
        return self.tokens.many(texts)

    def collate(self, texts: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask (B, T) of texts of one bucket."""
        return self.tokens.collate(texts)

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """Pixels (3, H, W) of an RGB image."""
        return self.pixels(image)

    @abstractmethod
    def text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled (B, Dt) and token features (B, T, D)."""

    @abstractmethod
    def image_features(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled (B, Dv) and patch features (B, P, D)."""

    def encode_texts(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pooled features (B, Dt)."""
        return self.text_features(ids, mask)[0]

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pooled features (B, Dv)."""
        return self.image_features(pixels)[0]


def masked_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of (B, T, D) over the tokens of each text: (B, D)."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
