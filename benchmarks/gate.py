"""What the gate says of good and of deliberately bad editors of the planted posts.

    PYTHONPATH=src python -m benchmarks.gate        # in a checkout after `make reproduce`; 2 minutes; docs/gate.md holds the output

    words   every token of a text is swapped, the core with it; images as estimated
    shift   the mask lies half an image off the face, so that swaps bear the donor's face; texts as estimated
    both    words and shift
    random  as many tokens and as large a mask, anywhere

Features of bad editors are encoded into a temporary folder; nothing in the checkout changes.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import torch

from causalroute import io, layout
from causalroute.config import Backbone, Gate, Pretrain
from causalroute.counterfactual.gate import gate
from causalroute.counterfactual.judged import LABELLED, judged_posts
from causalroute.counterfactual.pixels import pack_mask, unpack_mask
from causalroute.counterfactual.posts import posts_of
from causalroute.counterfactual.text import edit_texts
from causalroute.features.backbone import load_backbone
from causalroute.features.build import write_edited
from causalroute.features.encoding import Encoding
from causalroute.features.store import Store

DATASET, NAME = "planted", "planted_clip"
GOOD = ("estimated", "truth")
COLUMNS = ("detectability", "detectability_words", "cue_left", "real_read", "swaps_read", "label_kept")


def shifted(bits: bytes, side: int) -> bytes:
    """The mask moved by half an image both ways."""
    return pack_mask(np.roll(unpack_mask(bits, side), side // 2, axis=(0, 1)))


def bad_editors(manifest: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Counterfactuals of labelled posts, made bad on purpose."""
    rows = manifest.filter(pl.col("split").is_in(LABELLED))
    good, random = (pl.read_parquet(layout.counterfactuals(DATASET, name)).join(rows.select("id"), on="id") for name in ("estimated", "random"))
    posts = posts_of(rows)
    whole = edit_texts(posts, [np.ones(len(tokens), dtype=bool) for tokens in posts.tokens], 2, 0)
    words = good.with_columns(*(whole[name] for name in whole.columns))
    moved = pl.Series("mask", [shifted(bits, side) for bits, side in good.select("mask", "mask_side").iter_rows()])
    return {"words": words, "shift": good.with_columns(moved), "both": words.with_columns(moved), "random": random}


def shown(name: str, side: str, found: dict) -> str:
    """A Markdown row."""
    cells = (f"{x['value']:.2f} [{x['low']:.2f}, {x['high']:.2f}]" if (x := found.get(key)) else "–" for key in COLUMNS)
    return f"| {name} | {side} | {found['verdict']} | " + " | ".join(cells) + " |"


def main() -> None:
    """Prints one row for each editor and side."""
    torch.set_num_threads(1)
    manifest = pl.read_parquet(layout.manifest(DATASET))
    factual, _ = io.read_tensors(layout.features(DATASET, NAME, "factual"))
    tables = {name: pl.read_parquet(layout.counterfactuals(DATASET, name)) for name in GOOD} | bad_editors(manifest)
    print(f"| editor | side | verdict | {' | '.join(COLUMNS)} |\n|---|---|---|{'---|' * len(COLUMNS)}")
    backbone = load_backbone(Backbone(kind="dual_encoder", pretrain=Pretrain(), batch_size=64), NAME)
    with tempfile.TemporaryDirectory() as folder:
        for name, table in tables.items():
            made = name in GOOD
            views = io.read_tensors(layout.features(DATASET, NAME, name))[0] if made else encoded(name, table, backbone, Path(folder))
            found = gate(judged_posts(manifest, table, factual, views, Gate()), Gate())
            for side in ("text", "image"):
                print(shown(name, side, found[side]), flush=True)


def encoded(name: str, table: pl.DataFrame, backbone: object, folder: Path) -> dict[str, torch.Tensor]:
    """Features of the views of a table, made in a folder that looks like the checkout."""
    home = Path.cwd()
    for part in ("data", "models"):
        if not (folder / part).exists():
            (folder / part).symlink_to(home / part)
    os.chdir(folder)
    try:
        io.write_parquet(layout.counterfactuals(DATASET, name), table)
        layout.reference_image(DATASET).write_bytes((home / layout.reference_image(DATASET)).read_bytes())
        job = Encoding(backbone, Store(folder / "store", backbone.key), layout.raw(DATASET), 1, False)
        return io.read_tensors(write_edited(DATASET, NAME, name, job))[0]
    finally:
        os.chdir(home)


if __name__ == "__main__":
    main()
