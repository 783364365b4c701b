"""Posts of the built-in generator: posts.parquet with the posts and their causal truth, images beside it."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from causalroute.config import Dataset
from causalroute.data.records import GROUP, TRUTH, Records, dropped_of, needed
from causalroute.errors import UserError


def read(root: Path, dataset: Dataset) -> Records:
    """Splits posts.parquet (label: class name or index) into posts and truth.

    Raises:
        UserError: the file is absent or lacks columns.
    """
    path = needed(root / "posts.parquet", "the generated posts")
    posts = pl.read_parquet(path)
    missing = [name for name in ("id", "split", "text", "image", "label", *TRUTH) if name not in posts.columns]
    if missing:
        raise UserError(f"posts.parquet lacks the columns {missing}", where=str(path), fix="generate it again: delete data/<dataset>/raw and run")
    names = pl.Series("names", dataset.classes, dtype=pl.String)
    label = names.gather(posts["label"]) if posts["label"].dtype.is_integer() else posts["label"]
    groups = [name for name in posts.columns if name.startswith(GROUP)]
    frame = posts.select(
        pl.col("id", "split", "text", "image"),
        pl.lit(None, dtype=pl.String).alias("attributes"),
        label.alias("label"),
        pl.lit(None, dtype=pl.String).alias("pair"),
        pl.format("posts.parquet, row {}", pl.int_range(1, pl.len() + 1)).alias("where"),
        *(pl.col(name).cast(pl.String) for name in groups),
    )
    return Records(frame, dropped_of([]), truth=posts.select(pl.col(name).cast(kind) for name, kind in TRUTH.items()))
