"""What every backbone offers, and the one function that loads any of them.

Letters: B batch, T text tokens, P image patches, H and W pixels, Dt and Dv widths of the pooled text and image features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from causalroute.config import Backbone as Settings
from causalroute.features.tokens import Encoded

if TYPE_CHECKING:
    import torch
    from PIL import Image


class Backbone(Protocol):
    """A frozen encoder of texts and, where `has_images`, of images. Its methods keep gradients with respect to pixels."""

    key: str
    """digest of weights, configuration, tokenizer, preprocessing, pooling, batch size and library versions"""
    text_dim: int
    """Dt"""
    image_dim: int
    """Dv; Dt where the visual side is attribute words"""
    has_images: bool
    """False: no image tower"""
    mask_token: str
    """what a masked word becomes"""
    batch_size: int
    """texts of every forward pass"""
    image_batch: int
    """images of every forward pass; 0 without image tower"""

    def tokenize(self, text: str) -> Encoded:
        """Token ids of one text."""
        ...

    def tokenize_many(self, texts: Sequence[str]) -> list[Encoded]:
        """Token ids of each text."""
        ...

    def collate(self, texts: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask (B, T) of texts of one bucket."""
        ...

    def text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled (B, Dt) and token features (B, T, D)."""
        ...

    def encode_texts(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pooled features (B, Dt)."""
        ...

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """Pixels (3, H, W) of an RGB image."""
        ...

    def image_features(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled (B, Dv) and patch features (B, P, D)."""
        ...

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pooled features (B, Dv)."""
        ...


def load_backbone(config: Settings, name: str) -> Any:
    """Loads the backbone called `name` in `params.yaml`: a `Backbone`, or a `chats.ChatBackbone` where its kind is mllm.

    Raises:
        UserError: the model cannot be found, downloaded or used.
    """
    if config.kind == "dual_encoder":
        from causalroute.features.dual_encoder import DualEncoder

        return DualEncoder(config, name)
    if config.kind == "mllm":
        from causalroute.features.chats import ChatBackbone

        return ChatBackbone(config, name)
    from causalroute.features.encoder_pair import EncoderPair

    return EncoderPair(config, name)
