"""Posts with a planted text shortcut, their counterfactuals, and a tiny multimodal LLM that reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image
from tests.unit.tiny_mllm import save_mllm

from causalroute.config import Mllm as Settings
from causalroute.config import Prompt
from causalroute.counterfactual.pixels import pack_mask
from causalroute.counterfactual.views import MASK
from causalroute.methods.base import Posts
from causalroute.mllm.model import Mllm
from causalroute.mllm.posts import Reader, Views

PROMPT = Prompt(question="?", text="{text}", answers={"dull": "no", "glad": "yes"})
CORES = (("bad", "sad", "low", "dim"), ("joy", "top", "win", "fun"))
CUES = ("####", "@@@@")
SPLITS = {"train": 0.9, "valid": 0.9, "ood": 0.1}
"""Share of posts whose cue says what their label is."""
NOISE = 0.1
"""Share of posts to learn from whose label is not that of their word: without it a tiny model finds the word as soon as the cue."""


def tiny(folder: Path, kind: str = "llava", **settings: object) -> Mllm:
    return Mllm(save_mllm(folder, kind), Settings(prompts=(PROMPT,), device="cpu", **settings), where="the test")


def tables(folder: Path, sizes: dict[str, int], *, images: bool = True, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Manifest and counterfactuals of posts: a word of the label's, a cue that mostly goes with the label, a square of any colour."""
    rng = np.random.default_rng(seed)
    split = np.repeat(list(sizes), list(sizes.values()))
    count = len(split)
    label = rng.integers(0, 2, count)
    core = np.where((split != "ood") & (rng.random(count) < NOISE), 1 - label, label)
    cue = np.where(rng.random(count) < np.array([SPLITS[name] for name in split]), label, 1 - label)
    words = [CORES[y][rng.integers(4)] for y in core]
    ids = [f"p{row}" for row in range(count)]
    names = [f"{name}.png" if images else None for name in ids]
    if images:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            Image.new("RGB", (16, 16), tuple(int(x) for x in rng.integers(0, 256, 3))).save(folder / str(name))
    text = {"text": [f"{word} {CUES[c]}" for word, c in zip(words, cue, strict=True)]}
    manifest = pl.DataFrame({"id": ids, "split": split, **text, "label": label}).with_columns(
        pl.Series("image", names, pl.String), pl.Series("image_sha256", names, pl.String), pl.lit(None, pl.String).alias("attributes")
    )
    mask = np.zeros((4, 4), dtype=bool)
    mask[1:3, 1:3] = True
    edited = {
        "t_s": [f"{MASK} {CUES[c]}" for c in cue],
        "t_c": [f"{word} {MASK}" for word in words],
        "t_swap": [[f"{word} {CUES[1 - c]}"] * 2 for word, c in zip(words, cue, strict=True)],
    }
    sides = {
        "mask": [pack_mask(mask)] * count,
        "mask_side": [4] * count,
        "fill": ["mean"] * count,
        "v_donor": [[ids[row - 1], ids[row - 2]] for row in range(count)],
    }
    return manifest, pl.DataFrame({"id": ids, **edited, **sides, **{f"attr_{view}": [""] * count for view in "sc"}, "attr_swap": [["", ""]] * count})


def read_posts(mllm: Mllm, folder: Path, sizes: dict[str, int], *, images: bool = True) -> Posts:
    """The posts of `tables` with features of the frozen model; labels of `ood` are known to the test alone, like any."""
    manifest, edited = tables(folder, sizes, images=images)
    reader = Reader(mllm, manifest["id"].to_list(), Views(manifest, edited, None, folder / "reference.png"), folder)
    rows = torch.arange(manifest.height)
    views = {name: features(reader, rows, name) for name in ("t", "t_s", "t_c", "v", "v_s", "v_c", "t_swap", "v_swap")}
    ok = torch.ones(len(rows), dtype=torch.bool)
    listed = (manifest["id"].to_list(), manifest["split"].to_list(), manifest["text"].to_list())
    return Posts(*listed, torch.tensor(manifest["label"].to_list()), 2, views, ok, ok & images, reader=reader)


@torch.no_grad()
def features(reader: Reader, rows: torch.Tensor, view: str) -> torch.Tensor:
    """Standardised means over the tokens of one side (N, D), for swaps (N, 2, D)."""
    pair, side = ((view, "v"), "text") if view.startswith("t") else (("t", view), "image")
    swaps = [torch.zeros(len(rows), reader.width) for _ in range(2 if view.endswith("_swap") else 1)]
    for swap, values in enumerate(swaps):
        for places, batch in reader.passes(rows, *pair, swap, 32):
            values[places] = getattr(reader.mllm.read(batch), side)
    x = torch.stack(swaps, 1)
    x = (x - x.mean((0, 1))) / x.std((0, 1)).clamp(min=1e-4)
    return x if view.endswith("_swap") else x[:, 0]
