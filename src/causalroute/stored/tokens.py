"""Features of the tokens and patches of some posts, in every view that they were made of, read when they are asked for.

Letters: B posts asked for, K swaps, L tokens of the longest among them, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from causalroute import layout
from causalroute.errors import UserError
from causalroute.io import ids_digest
from causalroute.stored.reading import FeatureFile

HELD = {"t_held_swap": "t_swap", "v_held_swap": "v_swap"}
"""Views of the held-out editor -> their names in its own file."""


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
        rows, digest = torch.tensor([place[name] for name in ids]), ids_digest(manifest)
        self._files: dict[str, FeatureFile] = {}
        for role, views in (("", "factual"), ("edited", editor), ("held", held_out)):
            path = layout.tokens(dataset, backbone, views)
            if views and not path.is_file():
                raise UserError("features of tokens are missing", where=str(path), fix="run the whole pipeline (make reproduce), which makes them first")
            if views:
                self._files[role] = FeatureFile(path, rows, len(manifest), digest)
        self._stored: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        text, image = (int(self._view(view)[0].shape[-1]) for view in ("t", "v"))
        self.widths = text, image
        """D of the tokens of a text, and of the patches of an image (or the tokens of the words that stand for one)"""

    def _view(self, view: str) -> tuple[Tensor, Tensor, Tensor]:
        """What is stored of a view, the lengths, and the place of each post."""
        if view not in self._stored:
            file = self._files["held" if view in HELD else "" if view in ("t", "v") else "edited"]
            name = HELD.get(view, view)
            self._stored[view] = file.whole(name), file.whole(f"{name}_lengths"), file.place
        return self._stored[view]

    def read(self, view: str, rows: Tensor, swap: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        """A view of the posts `rows` (B,), of swaps the one numbered `swap`, which may differ from post to post (B,).

        Returns:
            (B, L, D) float32, and (B, L) bool, False behind the last token of each.
        """
        stored, lengths, place = self._view(view)
        at = (place[rows], swap) if view.endswith("_swap") else (place[rows],)
        length = lengths[at]
        longest = int(length.max())
        return stored[at][:, :longest].float(), torch.arange(longest) < length[:, None]
