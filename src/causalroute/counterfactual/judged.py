"""What the gate looks at: labelled posts with the features of their real and generated versions, side by side.

Letters: n posts, K swaps, D width. Sides: "text" with views t*, "image" (or attribute words) with views v*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.config import Gate
from causalroute.counterfactual.probes import Floats, Rows, folds_of
from causalroute.counterfactual.tokens import tokenize
from causalroute.counterfactual.views import edited_rows, visual_side
from causalroute.errors import UserError
from causalroute.rng import generator

LABELLED = ("train", "valid")
"""Splits whose labels may be looked at."""
LETTER = {"text": "t", "image": "v"}


@dataclass(frozen=True)
class Judged:
    """n posts."""

    rows: pl.DataFrame
    """the counterfactuals with `text`, `attributes`, `image` and `label` of the manifest"""
    labels: Rows
    """(n,)"""
    classes: int
    """C"""
    fold: Rows
    """(n,)"""
    views: Mapping[str, Floats]
    """t, t_s, t_c, v, v_s, v_c: (n, D); t_swap, v_swap: (n, K, D)"""
    visual: str
    """image, attributes or none"""

    def usable(self, side: str) -> NDArray[np.bool_]:
        """Posts whose swaps of a side may be trained on: (n,)."""
        return self.rows[f"{side}_ok"].to_numpy()

    def versions(self, side: str) -> Floats:
        """Real version and swaps, (n, 1 + K, D); a post without usable swap shows its real version throughout, as training does."""
        real, swaps = self.views[LETTER[side]][:, None], self.views[f"{LETTER[side]}_swap"]
        return np.concatenate([real, np.where(self.usable(side)[:, None, None], swaps, real)], axis=1)

    def words(self, column: str) -> list[str]:
        """Token keys of a text column, joined by spaces; of a list column those of the first text."""
        series = self.rows[column]
        texts = series.list.first() if series.dtype == pl.List else series
        return [" ".join(token.key for token in tokenize(text or "")) for text in texts]


def judged_posts(manifest: pl.DataFrame, counterfactuals: pl.DataFrame, factual: Mapping[str, Any], views: Mapping[str, Any], settings: Gate) -> Judged:
    """The labelled posts, at most `settings.posts` of them.

    Args:
        manifest: N rows.
        counterfactuals: M rows of the editor.
        factual: tensors of `factual.safetensors`: t, v (N, D).
        views: tensors of the editor's file; `rows` (M,) must be those of `counterfactuals`.
        settings: how many posts and folds.

    Raises:
        UserError: the files do not belong together, or no post has a label of two classes.
    """
    place = np.array(edited_rows(manifest, counterfactuals), dtype=np.int64)
    if "rows" not in views or not np.array_equal(np.asarray(views["rows"]), place):
        raise UserError("the features of the editor's views belong to other counterfactuals", fix="run the features stage again")
    known = manifest.select("id", "split", "label", "text", "attributes", "image", "text_sha256", "image_sha256")
    rows = counterfactuals.with_row_index("at").join(known, on="id", how="left", maintain_order="left")
    rows = rows.filter(pl.col("split").is_in(LABELLED) & pl.col("label").is_not_null())
    labels = rows["label"].cast(pl.Int64).to_numpy()
    if len(np.unique(labels)) < 2:
        raise UserError("fewer than two classes are labelled", where="manifest.parquet", fix="the gate needs labelled train posts of two classes")
    kept = np.sort(generator(settings.seed, "gate posts").permutation(rows.height)[: settings.posts])
    rows, classes = rows[kept], int(labels.max()) + 1
    at = rows["at"].to_numpy().astype(np.int64)
    found = {name: _take(views[name], at) for name in ("t_s", "t_c", "t_swap", "v_s", "v_c", "v_swap")}
    found |= {name: _take(factual[name], place[at]) for name in ("t", "v")}
    groups = [tuple(f"{kind}{key}" for kind, key in zip("ti", keys, strict=True) if key) for keys in rows.select("text_sha256", "image_sha256").iter_rows()]
    return Judged(rows, labels[kept], classes, folds_of(groups, settings.folds, settings.seed), found, visual_side(manifest))


def _take(tensor: Any, rows: Rows) -> Floats:
    import torch

    return np.asarray(torch.as_tensor(tensor)[torch.from_numpy(rows)].double().numpy())
