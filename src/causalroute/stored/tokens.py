"""Features of the tokens and patches of some posts, in every view that they were made of, read when they are asked for.

Letters: B posts asked for, K swaps, L tokens of the longest among them, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from causalroute import layout
from causalroute.errors import UserError
from causalroute.io import ids_digest
from causalroute.stored.reading import HELD, FeatureFile


@dataclass(frozen=True)
class _View:
    """What is stored of a view of N posts."""

    tokens: Tensor
    """(T, D)"""
    starts: Tensor
    """(N,), of swaps (N, K): where the tokens of each begin"""
    lengths: Tensor
    """of the same shape"""
    place: Tensor
    """rows of the posts that are asked for"""


class TokenReader:
    """Reads the posts `ids` of a data set; row numbers are places in `ids`.

    Args:
        ids: posts of the manifest.
        dataset: name of the data set.
        backbone: name of the backbone.
        editor: whose views are read beside the posts themselves; empty: none.
        held_out: the same of the editor whose swaps serve evaluation.

    Raises:
        UserError: a file is missing, belongs to another manifest, or lacks some of the posts.
    """

    def __init__(self, ids: Sequence[str], dataset: str, backbone: str, editor: str, held_out: str = "") -> None:
        manifest = pl.read_parquet(layout.manifest(dataset), columns=["id"])["id"]
        place = {name: row for row, name in enumerate(manifest)}
        rows, digest = torch.tensor([place[name] for name in ids], dtype=torch.int64), ids_digest(manifest)
        self._files: dict[str, FeatureFile] = {}
        for role, views in (("", "factual"), ("edited", editor), ("held", held_out)):
            path = layout.tokens(dataset, backbone, views)
            if views and not path.is_file():
                raise UserError("features of tokens are missing", where=str(path), fix="run the whole pipeline (make reproduce), which makes them first")
            if views:
                self._files[role] = FeatureFile(path, rows, len(manifest), digest)
                self._files[role].require_backbone_of(layout.features(dataset, backbone, "factual"))
        self._stored: dict[str, _View] = {}
        text, image = (int(self._view(view).tokens.shape[-1]) for view in ("t", "v"))
        self.widths = text, image
        """D of the tokens of a text, and of the patches of an image (or the tokens of the words that stand for one)"""

    def _view(self, view: str) -> _View:
        if view not in self._stored:
            file = self._files["held" if view in HELD else "" if view in ("t", "v") else "edited"]
            name = HELD.get(view, view)
            lengths = file.whole(f"{name}_lengths").long()
            starts = (lengths.flatten().cumsum(0) - lengths.flatten()).view_as(lengths)
            self._stored[view] = _View(file.whole(name), starts, lengths, file.place)
        return self._stored[view]

    def read(self, view: str, rows: Tensor, swap: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        """A view of the posts `rows` (B,), of swaps the one numbered `swap`, which may differ from post to post (B,).

        Returns:
            (B, L, D) float32, 0 behind the last token of each, and (B, L) bool, False there.
        """
        stored = self._view(view)
        at = (stored.place[rows], swap) if view.endswith("_swap") else (stored.place[rows],)
        start, length = stored.starts[at][:, None], stored.lengths[at][:, None]
        offset = torch.arange(int(length.max()) if len(length) else 0)
        inside = offset < length
        found = stored.tokens[torch.where(inside, start + offset, 0)]
        return found.float().masked_fill_(~inside[..., None], 0.0), inside
