"""Pairs of views that a model reads together: the inputs of the joint features that `causalroute.pairs` names.

Letters: N posts, M posts with counterfactuals, K swaps of each side.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import polars as pl

from causalroute.counterfactual.views import FACTUAL, ImageInput, TextInput, edited_rows, view_inputs, visual_side
from causalroute.errors import UserError
from causalroute.io import sha256_bytes
from causalroute.pairs import EDITED_PAIRS, FACTUAL_PAIRS


@dataclasses.dataclass(frozen=True)
class PairInput:
    """A text and an image that are read together."""

    pair: tuple[TextInput, ImageInput]
    replied: bool = False
    """the model writes a reply to it, where it is let"""

    def content_key(self) -> str:
        """Hex digest of both contents, and of whether there is a reply."""
        return sha256_bytes(b"replied pair" if self.replied else b"pair", *(side.content_key().encode() for side in self.pair))


def pair_inputs(manifest: pl.DataFrame, counterfactuals: pl.DataFrame | None, name: str, reference: Path | None = None) -> list[PairInput]:
    """Inputs of one joint feature, in the order in which it is stored.

    Args:
        manifest: N rows, with images.
        counterfactuals: M rows; not needed for the factual pair.
        name: a key of `FACTUAL_PAIRS` (N inputs) or `EDITED_PAIRS` (M inputs; M * K where one side is a swap, M * K * K where both are).
        reference: file of the reference image, for posts without one.

    Raises:
        UserError: the visual side is no image.
    """
    if visual_side(manifest) != "image":
        raise UserError("a multimodal LLM reads images, and the data set has none", where="params.yaml: datasets", fix="choose another kind of backbone")
    sides = (FACTUAL_PAIRS | EDITED_PAIRS)[name]
    rows = list(range(manifest.height)) if counterfactuals is None else edited_rows(manifest, counterfactuals)
    text, image = (_per_post(manifest, counterfactuals, view, rows, reference) for view in sides)
    return [PairInput((t, v)) for texts, images in zip(text, image, strict=True) for t in texts for v in images]


def _per_post(manifest: pl.DataFrame, counterfactuals: pl.DataFrame | None, view: str, rows: list[int], reference: Path | None) -> list[list[Any]]:
    """The inputs of a view, grouped by post: one each, or K."""
    inputs = view_inputs(manifest, counterfactuals, view, reference)
    if view in FACTUAL:
        return [[inputs[row]] for row in rows]
    each = len(inputs) // max(len(rows), 1)
    return [list(inputs[first : first + each]) for first in range(0, len(inputs), each)]
