"""Any text AutoModel beside any vision AutoModel; without the latter the visual side is attribute words, read by the text model.

Text features are the mean hidden state over the tokens; image features the model's pooled output, or its mean patch where the checkpoint has no pooler.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from causalroute.config import Backbone as Settings
from causalroute.errors import UserError
from causalroute.features.folders import find_folder, fingerprint, library_versions
from causalroute.features.loading import Pixels, load_model, load_tokenizer
from causalroute.features.tokens import LIMIT, Tokens
from causalroute.features.two_towers import TwoTowers, masked_mean

VERSION = "encoder_pair 1: text mean hidden, image pooled output or mean patch"


class EncoderPair(TwoTowers):
    """See `backbone.Backbone`.

    Raises:
        UserError: a model cannot be found, or is of the wrong kind.
    """

    def __init__(self, config: Settings, name: str) -> None:
        where = f"params.yaml: backbones.{name}"
        folders = [find_folder(config.text_model, config.revision, where=f"{where}.text_model")]
        self.text_model, _ = load_model(folders[0], "text model")
        _check_kind(self.text_model, "input_ids", f"{where}.text_model")
        self.tokens = Tokens(load_tokenizer(folders[0]), _positions(self.text_model))
        self.mask_token, self.batch_size = self.tokens.mask_token, config.batch_size
        self.text_dim = self.image_dim = self.text_model.config.hidden_size
        self.has_images, self.image_batch = bool(config.image_model), 0
        if self.has_images:
            folders.append(find_folder(config.image_model, config.revision, where=f"{where}.image_model"))
            self._load_images(folders[1], config.batch_size, f"{where}.image_model")
        self.key = fingerprint(folders, VERSION, f"batch {config.batch_size}", *library_versions())

    def _load_images(self, folder: Path, batch_size: int, where: str) -> None:
        self.image_model, missing = load_model(folder, "image model")
        _check_kind(self.image_model, "pixel_values", where)
        self.image_model.to(memory_format=torch.channels_last)  # the faster layout of convolutions
        self.pixels = Pixels(folder, batch_size)
        self.image_batch = self.pixels.batch_size
        self.pooler = not missing  # a pooler that the checkpoint lacks would hold random weights
        with torch.no_grad():
            self.image_dim = self.encode_images(self.preprocess(Image.new("RGB", (64, 64)))[None]).shape[-1]

    def text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled (B, Dt) and token features (B, T, Dt)."""
        hidden = self.text_model(input_ids=ids, attention_mask=mask).last_hidden_state
        return masked_mean(hidden, mask), hidden

    def image_features(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled (B, Dv) and patch features (B, P, D)."""
        output = self.image_model(pixel_values=pixels.contiguous(memory_format=torch.channels_last))
        patches = output.last_hidden_state
        if patches.dim() == 4:
            patches = patches.flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, P, D)
        pooled = getattr(output, "pooler_output", None) if self.pooler else None
        return (patches.mean(1) if pooled is None else pooled.flatten(1)), patches


def _check_kind(model: Any, wanted: str, where: str) -> None:
    config = model.config
    if hasattr(config, "text_config") and hasattr(config, "vision_config"):
        raise UserError(f"{config.model_type!r} has both towers", where=where, fix="use kind: dual_encoder with model")
    if config.is_encoder_decoder or model.main_input_name != wanted:
        kind = "text encoder" if wanted == "input_ids" else "image encoder"
        raise UserError(f"{config.model_type!r} is no {kind}", where=where, fix=f"name a model whose AutoModel reads {wanted} and has no decoder apart")


def _positions(model: Any) -> int:
    """Tokens the model takes; RoBERTa and its kin count positions from behind the padding index."""
    offset = getattr(getattr(model, "embeddings", None), "padding_idx", None)
    return getattr(model.config, "max_position_embeddings", LIMIT) - (0 if offset is None else offset + 1)
