"""One model with a text and an image tower that share a space: CLIP, SigLIP, SigLIP 2 (fixed resolution).

Pooled text features are [pooled, mean hidden state, mean token embedding], pooled image features [pooled, mean patch]: the pooled output alone is
what contrastive training kept of a post, and the means keep what it threw away (single words, small objects).
"""

from __future__ import annotations

from typing import Any

import torch

from causalroute import layout
from causalroute.config import Backbone as Settings
from causalroute.errors import UserError
from causalroute.features.folders import find_folder, fingerprint, library_versions
from causalroute.features.loading import Pixels, load_model, load_tokenizer
from causalroute.features.tokens import Tokens
from causalroute.features.two_towers import TwoTowers, masked_mean

VERSION = "dual_encoder 1: text [pooled, mean hidden, mean embedding], image [pooled, mean patch]"


class DualEncoder(TwoTowers):
    """See `backbone.Backbone`.

    Raises:
        UserError: the model cannot be found, or has not two towers.
    """

    has_images = True

    def __init__(self, config: Settings, name: str) -> None:
        where = f"params.yaml: backbones.{name}"
        folder = find_folder(config.model or str(layout.backbone(name)), config.revision, where=where)
        self.model, missing = load_model(folder, "dual encoder")
        if missing or not (hasattr(self.model, "text_model") and hasattr(self.model, "vision_model") and hasattr(self.model, "get_text_features")):
            what = f"{self.model.config.model_type!r} is no dual encoder"
            raise UserError(what, where=f"{where}.model", fix="name a CLIP or SigLIP model, or use kind: encoder_pair with text_model and image_model")
        text, vision = self.model.config.text_config, self.model.config.vision_config
        self.siglip = self.model.config.model_type.startswith("siglip")
        self.tokens = Tokens(load_tokenizer(folder), text.max_position_embeddings, fixed=self.siglip)
        self.pixels = Pixels(folder, config.batch_size)
        self.mask_token, self.batch_size, self.image_batch = self.tokens.mask_token, config.batch_size, self.pixels.batch_size
        self.text_dim, self.image_dim = 3 * text.hidden_size, 2 * vision.hidden_size
        self.first_patch = int(hasattr(self.model.vision_model.embeddings, "class_embedding"))
        self.key = fingerprint([folder], VERSION, f"batch {config.batch_size}", *library_versions())

    def _inputs(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """SigLIP attends to its padding, as in its training."""
        return {"input_ids": ids} if self.siglip else {"input_ids": ids, "attention_mask": mask}

    def text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled (B, Dt) and token features (B, T, D)."""
        tower = self.model.text_model
        output = tower(**self._inputs(ids, mask))
        raw = tower.embeddings.token_embedding(ids)  # (B, T, D), before positions
        hidden = output.last_hidden_state
        return torch.cat([output.pooler_output, masked_mean(hidden, mask), masked_mean(raw, mask)], -1), hidden

    def image_features(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled (B, Dv) and patch features (B, P, D)."""
        output = self.model.vision_model(pixel_values=pixels)
        patches = output.last_hidden_state[:, self.first_patch :]  # (B, P, D)
        return torch.cat([output.pooler_output, patches.mean(1)], -1), patches

    def project_text(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Texts in the shared space (B, D), unit length: dot products with `project_image` are the model's similarities."""
        return _unit(self.model.get_text_features(**self._inputs(ids, mask)))

    def project_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images in the shared space (B, D), unit length; keeps gradients."""
        return _unit(self.model.get_image_features(pixel_values=pixels))


def _unit(output: Any) -> torch.Tensor:
    vectors = output if isinstance(output, torch.Tensor) else output.pooler_output
    return torch.nn.functional.normalize(vectors, dim=-1)
