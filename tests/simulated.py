"""Simulated features of a two-sided shortcut: label = XOR of two cores, one cue per side copies the label with probability rho.

text = noise + a * core direction + s * cue direction (likewise image); swaps replace s by that of an item of another class. Written in the pipeline's
own file formats, so that the stages run on it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import torch

from causalroute import io, layout

CLASSES = ("literal", "sarcastic")
DIM = 24
RHO = {"train": 0.9, "valid": 0.9, "id": 0.9, "ood": 0.1, "neutral": 0.5, "oracle_train": 0.5, "oracle_valid": 0.5}
NAME = "sim"


def counts(train: int, valid: int, test: int) -> dict[str, int]:
    return {"train": train, "valid": valid, "id": test, "ood": test, "neutral": test, "oracle_train": train, "oracle_valid": valid}


def write(
    *, train: int = 600, valid: int = 200, test: int = 200, noise: float = 0.6, core: float = 1.2, cue: float = 2.0, seed: int = 0, failed: float = 0.1
) -> None:
    """Writes data set `sim` with backbone `b` and editors `estimated` and `truth` below the current folder."""
    rng = np.random.default_rng(seed)
    sizes = counts(train, valid, test)
    split = np.repeat(list(sizes), list(sizes.values()))
    n = len(split)
    rho = np.array([RHO[s] for s in split])
    a, b = rng.choice([-1, 1], n), rng.choice([-1, 1], n)
    ids = {"ids_sha256": io.sha256_bytes(*(f"p{row}".encode() for row in range(n)))}
    clean = (a != b).astype(int)
    noisy = np.isin(split, ["train", "valid", "oracle_train", "oracle_valid"]) & (rng.random(n) < 0.02)
    label = np.where(noisy, 1 - clean, clean)
    sign = 2 * label - 1
    cues = {side: np.where(rng.random(n) < rho, sign, -sign) for side in "tv"}
    _tables(split, label, cues["t"], rng)
    directions = {side: np.linalg.qr(rng.normal(size=(DIM, 2)))[0].T * math.sqrt(DIM) / 2 for side in "tv"}
    cores = {"t": a, "v": b}

    def render(side: str, core_value: np.ndarray, cue_value: np.ndarray, seed_: int) -> np.ndarray:
        own = np.random.default_rng([seed, seed_, ord(side)]).normal(size=(len(core_value), DIM)) * noise * 1.5
        d = directions[side]
        return (own + core * core_value[:, None] * d[0] + cue * cue_value[:, None] * d[1]).astype(np.float16)

    factual = {side: torch.from_numpy(render(side, cores[side], cues[side], 1)) for side in "tv"}
    io.write_tensors(layout.features(NAME, "b", "factual"), factual, ids)
    rows = np.flatnonzero(~np.char.startswith(split.astype(str), "oracle"))
    zeros = np.zeros(len(rows))
    for editor, share in (("estimated", failed), ("truth", 0.0)):
        ok = {side: rng.random(len(rows)) >= share for side in "tv"}
        views: dict[str, torch.Tensor] = {"rows": torch.from_numpy(rows)}
        for side in "tv":
            core_value, cue_value = cores[side][rows], cues[side][rows]
            swapped = [np.where(ok[side], -np.where(rng.random(len(rows)) < 0.9, sign[rows], -sign[rows]), cue_value) for _ in range(2)]
            views[f"{side}_s"] = torch.from_numpy(render(side, zeros, cue_value, 2))
            views[f"{side}_c"] = torch.from_numpy(render(side, core_value, zeros, 3))
            views[f"{side}_swap"] = torch.from_numpy(np.stack([render(side, core_value, cue, 4 + k) for k, cue in enumerate(swapped)], 1))
        io.write_tensors(layout.features(NAME, "b", editor), views, ids)
        flags = pl.DataFrame({"id": [f"p{row}" for row in rows], "text_ok": ok["t"], "image_ok": ok["v"]})
        io.write_parquet(layout.counterfactuals(NAME, editor), flags)
        io.write_json(layout.gate(NAME, editor), {side: {"passed": True, "reasons": []} for side in ("text", "image")})


def write_tokens(*, keep: float = 1.0) -> None:
    """Features of tokens of the posts that `write` wrote: each holds every third number of the side's feature, three to five of text, three of image.

    Args:
        keep: how much of the feature is in the tokens; 0: tokens are noise alone.
    """
    _, ids = io.read_tensors(layout.features(NAME, "b", "factual"))
    for editor in ("factual", "estimated", "truth"):
        stored, _ = io.read_tensors(layout.features(NAME, "b", editor))
        tensors = {"rows": stored.pop("rows")} if "rows" in stored else {}
        for view, x in stored.items():
            lengths = 3 + (torch.arange(len(x)) % 3 if view[0] == "t" else torch.zeros(len(x), dtype=torch.int64))
            noise = torch.randn(*x.shape[:-1], 5, DIM, generator=torch.Generator().manual_seed(ord(view[-1])))
            tokens = 0.3 * noise
            for place in range(3):
                tokens[..., place, place::3] += keep * x[..., place::3].float()
            lengths = lengths.view(-1, *[1] * (x.dim() - 2)).expand(x.shape[:-1])
            if view == "t_swap":
                lengths = torch.stack([lengths[:, 0], lengths[:, 1].flip(0)], 1)
            tensors |= {view: tokens[torch.arange(5) < lengths[..., None]].half(), f"{view}_lengths": lengths.int().contiguous()}
        io.write_tensors(layout.tokens(NAME, "b", editor), tensors, ids)


def _tables(split: np.ndarray, label: np.ndarray, cue: np.ndarray, rng: np.random.Generator) -> None:
    hidden = np.isin(split, ["id", "ood", "neutral"])
    words = ["dull", "bright", "grey", "calm"]
    texts = [f"a {words[rng.integers(4)]} day {'#up' if value > 0 else '#down'} {words[rng.integers(4)]}" for value in cue]
    frame = pl.DataFrame({"id": [f"p{row}" for row in range(len(split))], "split": split.astype(str), "text": texts, "label": label}).with_columns(
        pl.col("label").cast(pl.Int8), pl.Series("group:kind", ["x" if row % 2 else "y" for row in range(len(split))])
    )
    secret = pl.Series(hidden)
    io.write_parquet(layout.test_labels(NAME), frame.filter(secret).select("id", "split", "label", "group:kind"))
    shown = [pl.when(secret).then(None).otherwise(pl.col(name)).alias(name) for name in ("label", "group:kind")]
    io.write_parquet(layout.manifest(NAME), frame.with_columns(shown))


def dataset() -> dict[str, object]:
    """The data set's section of params.yaml."""
    return {
        "format": "planted", "task": "sarcasm", "classes": list(CLASSES), "positive": "sarcastic", "backbone": "b", "editor": "estimated", "held_out": "truth",
        "methods": ["erm"], "sources": [{"kind": "planted"}],
    }  # fmt: skip


def config(**sections: object) -> str:
    """A stage's --config."""
    return io.canonical_json({"dataset": dataset(), **sections})


def root(path: Path) -> Path:
    """A fresh folder for the files."""
    path.mkdir(parents=True, exist_ok=True)
    return path
