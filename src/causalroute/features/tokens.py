"""Texts to token ids: truncation, the mask token, and length buckets.

A text is padded to a length that depends on itself alone (a multiple of 8), never on its neighbours in a batch, so that its features are the
same whatever it is encoded with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from causalroute.counterfactual.views import MASK
from causalroute.errors import UserError

if TYPE_CHECKING:
    import torch

STEP = 8
"""Lengths are rounded up to a multiple of this."""
LIMIT = 512
"""Tokens kept of a text, where the model itself would take more."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """The token ids of one text, special tokens included."""

    ids: tuple[int, ...]
    """after truncation"""
    bucket: int
    """padded length"""


class Tokens:
    """The tokenizer of a backbone.

    Args:
        tokenizer: a transformers tokenizer.
        positions: the most tokens the model takes.
        fixed: pad every text to the full length (SigLIP is trained so and reads its last position).
    """

    def __init__(self, tokenizer: Any, positions: int, *, fixed: bool = False) -> None:
        self.tokenizer, self.fixed = tokenizer, fixed
        self.max_length = min(tokenizer.model_max_length, positions, LIMIT)
        candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.pad_id = next(value for value in candidates if value is not None)
        self.mask_token = self._mask_token()

    def _mask_token(self) -> str:
        """The tokenizer's mask token, else its unknown or padding token, else punctuation: the first that is one token inside a text.

        Tokens that begin or end a text are left out: CLIP reads its feature at the first end token, and its unknown token is that very one.
        """
        tokenizer = self.tokenizer
        ends = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.sep_token, tokenizer.cls_token}
        special = [token for token in (tokenizer.mask_token, tokenizer.unk_token, tokenizer.pad_token) if token and token not in ends]
        for token in (*special, "_", "*", "-", "."):
            if len(self._ids(f"a {token} a")) == len(self._ids("a a")) + 1:
                return token
        raise UserError("the tokenizer has no token that could stand for a masked word", fix="add a mask_token to its special_tokens_map.json")

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def many(self, texts: Sequence[str]) -> list[Encoded]:
        """Token ids of each text; MASK becomes the backbone's mask token; an empty text is fine."""
        if not texts:
            return []
        ready = [text.replace(MASK, self.mask_token) for text in texts]
        ids = self.tokenizer(ready, truncation=True, max_length=self.max_length)["input_ids"]
        return [self._encoded(row or [self.pad_id]) for row in ids]

    def _encoded(self, ids: list[int]) -> Encoded:
        bucket = self.max_length if self.fixed else min(-(-len(ids) // STEP) * STEP, self.max_length)
        return Encoded(tuple(ids), bucket)

    def collate(self, texts: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pads texts of ONE bucket: ids (B, T) int64 and mask (B, T) int64, 1 where a token is."""
        import torch

        width = texts[0].bucket
        if any(text.bucket != width for text in texts):
            raise ValueError("texts of different buckets in one batch: their features would depend on their neighbours")
        ids = torch.tensor([[*text.ids, *[self.pad_id] * (width - len(text.ids))] for text in texts])
        mask = torch.tensor([[1] * len(text.ids) + [0] * (width - len(text.ids)) for text in texts])
        return ids, mask  # (B, T)
