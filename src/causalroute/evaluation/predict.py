"""What every trained seed says about every evaluated item and view, as one long table (predictions.parquet).

Views: factual (t, v); swap_t (t_swap, v); swap_v (t, v_swap); swap_tv (both), each with the first donor; held_* likewise with the swaps of the editor
that is held out of training; context (t_s, v_s); core (t_c, v_c).
A method that reads words instead of features, or replies, has the factual view alone; one of replies has a column `unparsed`.
The effects and gates of a method with mediation are those of the post itself in every view, unless they read
whole sides (form B, routers learned, ce and random).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from causalroute.errors import UserError
from causalroute.io import read_tensors
from causalroute.methods.base import Answer, Method, Posts, Shape
from causalroute.training.data import SOURCE, Standard
from causalroute.training.job import build

VIEWS = {
    "factual": ("t", "v"),
    "swap_t": ("t_swap", "v"),
    "swap_v": ("t", "v_swap"),
    "swap_tv": ("t_swap", "v_swap"),
    "held_t": ("t_held_swap", "v"),
    "held_v": ("t", "v_held_swap"),
    "held_tv": ("t_held_swap", "v_held_swap"),
    "context": ("t_s", "v_s"),
    "core": ("t_c", "v_c"),
}
FIELDS = ("p", "te", "nde_t", "nde_v", "nde_tv", "gates", "experts")
ROWS = 4096
"""items per forward pass"""


class Weights:
    """The weights file of one job."""

    def __init__(self, path: Path) -> None:
        self.tensors, metadata = read_tensors(path)
        self.method: str = metadata["method"]
        self.settings: dict[str, Any] = json.loads(metadata["settings"])
        self.shape = Shape(**json.loads(metadata["shape"]))
        self.seeds: list[int] = json.loads(metadata["seeds"])
        self._extra = json.loads(metadata["extra"])

    @property
    def standard(self) -> Standard:
        """What features were standardised with."""
        return Standard(**self._under("standard/"))

    def restore(self, seed: int, reader: Any = None) -> Method:
        """The trained method of one seed; `reader` for one that reads raw posts."""
        method = build(self.method, self.settings, self.shape, seed, reader)
        method.restore(self._under(f"seed{seed}/"), self._extra[str(seed)])
        return method.eval()

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}


def predict(weights: Weights, posts: Posts, labels: pl.DataFrame) -> pl.DataFrame:
    """All seeds, views and items.

    Args:
        weights: of one job.
        posts: the evaluated items, standardised with `weights.standard`.
        labels: `id`, `label` and group columns of exactly these items.

    Returns:
        One row per seed, view and item, in this order; items as in `posts`.

    Raises:
        UserError: when an item has no label.
    """
    truth = pl.DataFrame({"id": posts.ids}).join(labels, on="id", how="left", maintain_order="left")
    if truth["label"].null_count():
        missing = truth.filter(pl.col("label").is_null())["id"][0]
        raise UserError(f"{truth['label'].null_count()} evaluated items have no label", where=f"id {missing}", fix="run prepare again")
    if SOURCE in truth.columns:
        posts = dataclasses.replace(posts, sources=truth[SOURCE].to_list())
    views = [view for view, (t, v) in VIEWS.items() if t in posts.views and v in posts.views]
    groups = truth.select(pl.col("label").cast(pl.Int8), *[column for column in truth.columns if column.startswith("group:")])
    base = pl.DataFrame({"id": posts.ids, "split": posts.splits})
    parts = []
    for seed in weights.seeds:
        method = weights.restore(seed, posts.reader)
        for view in views[:1] if method.factual_only else views:
            answer = _answer(method, posts, *VIEWS[view])
            head = base.select("id", pl.lit(seed, pl.Int32).alias("seed"), "split", pl.lit(view).alias("view"))
            parts.append(pl.concat([head, groups.select("label"), _columns(answer, len(base)), groups.drop("label")], how="horizontal"))
    return pl.concat(parts)


@torch.no_grad()
def _answer(method: Method, posts: Posts, text: str, image: str) -> Answer:
    parts = [method.answer(posts.inputs(rows, text, image)) for rows in torch.arange(len(posts.ids)).split(ROWS)]
    joined: dict[str, Any] = {}
    for name in (*FIELDS, "unparsed"):
        values = [getattr(part, name) for part in parts]
        joined[name] = None if values[0] is None else torch.cat(values)
    return Answer(**joined)


def _columns(answer: Answer, rows: int) -> pl.DataFrame:
    columns = {}
    for name in FIELDS:
        value = getattr(answer, name)
        kind = pl.List(pl.Float32)
        columns[name] = pl.Series(name, [None] * rows, dtype=kind) if value is None else pl.Series(name, value.float().numpy()).cast(kind)
    if answer.unparsed is not None:
        columns["unparsed"] = pl.Series("unparsed", answer.unparsed.numpy())
    return pl.DataFrame(columns)
