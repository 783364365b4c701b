"""Made-up predictions in the shape of a real run: a text shortcut that reverses out of distribution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch

from causalroute import io, layout
from causalroute.config import Dataset, Replicates, Source
from causalroute.evaluation.collect import chunks

SKILL = {
    "majority": (0.0, 0.0), "bag_of_words": (0.3, 2.2), "text_only": (0.2, 2.0), "image_only": (0.1, 1.6), "erm": (1.8, 1.8),
    "group_dro": (1.9, 1.5), "cf_vqa": (1.9, 1.4), "text_swap": (2.2, 0.9), "image_swap": (2.1, 1.0), "double_swap": (2.8, 0.1),
    "causal_moe": (2.8, 0.2), "oracle_erm": (2.9, 0.0), "oracle_swap": (3.0, 0.0),
}  # fmt: skip
AGREES = {"valid": 0.9, "id": 0.9, "ood": 0.1, "neutral": 0.5, "clean": 0.5}
VIEWS = ("factual", "swap_t", "swap_v", "swap_tv", "held_t", "held_v", "held_tv", "context", "core")


def dataset(methods: tuple[str, ...] = tuple(SKILL), classes: tuple[str, ...] = ("literal", "sarcastic")) -> Dataset:
    positive = "sarcastic" if "sarcastic" in classes else ""
    return Dataset(
        format="planted",
        task="sarcasm",
        classes=classes,
        positive=positive,
        backbone="b",
        editor="estimated",
        held_out="other",
        methods=methods,
        sources=(Source(kind="planted"),),
    )


def _split(split: str, items: int, classes: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(sum(map(ord, split)))
    labels = rng.integers(classes, size=items)
    agrees = rng.random(items) < AGREES[split]
    return {
        "id": np.array([f"{split}-{i:05d}" for i in range(items)]),
        "label": labels,
        "cue": np.where(agrees, labels, (labels + 1) % classes),
        "hard": rng.normal(size=(items, classes)),
        "agrees": agrees,
    }


def _scores(base: dict[str, np.ndarray], skill: tuple[float, float], view: str, classes: int, rng: np.random.Generator) -> np.ndarray:
    core, cue = skill
    noise = 0.9 * base["hard"] + 0.4 * rng.normal(size=(len(base["id"]), classes))
    core_on, cue_on = view != "context", view != "core"
    shown = (base["cue"] + 1) % classes if view.startswith(("swap", "held")) else base["cue"]
    scores = core * core_on * np.eye(classes)[base["label"]] + cue * cue_on * np.eye(classes)[shown]
    return scores + noise * (core + cue > 0) + np.eye(classes)[0] * 1e-3


def frame(method: str, seeds: range, sizes: dict[str, int], classes: int = 2) -> pl.DataFrame:
    parts = []
    for split, items in sizes.items():
        base = _split(split, items, classes)
        for seed in seeds:
            for view in VIEWS:
                rng = np.random.default_rng([len(method), sum(map(ord, method + split + view)), seed])
                scores = _scores(base, SKILL[method], view, classes, rng)
                p = np.exp(scores - scores.max(-1, keepdims=True))
                parts.append(_rows(base, seed, split, view, (p / p.sum(-1, keepdims=True)).astype(np.float32), method == "causal_moe", rng))
    return pl.concat(parts)


def _rows(base: dict[str, np.ndarray], seed: int, split: str, view: str, p: np.ndarray, mediated: bool, rng: np.random.Generator) -> pl.DataFrame:
    items, classes = p.shape
    lists = pl.List(pl.Float32)
    sign = np.where(base["agrees"], 2.2, -2.2)[:, None] * np.eye(classes)[base["label"]]
    gates = rng.dirichlet([1, 2, 2, 6], size=items).astype(np.float32)
    effects = {"te": 2 * sign, "nde_t": 0.9 * sign, "nde_v": 1.1 * sign, "nde_tv": 1.7 * sign, "gates": gates, "experts": gates}
    extra = {name: pl.Series(name, value.astype(np.float32).tolist() if mediated else [None] * items, dtype=lists) for name, value in effects.items()}
    return pl.DataFrame(
        {
            "id": base["id"], "seed": pl.Series([seed] * items, dtype=pl.Int32), "split": [split] * items, "view": [view] * items,
            "label": pl.Series(base["label"], dtype=pl.Int8), "p": pl.Series(p.tolist(), dtype=lists), **extra,
            "group:source": pl.Series(["tweet" if i % 3 else "forum" for i in range(items)]),
        }
    )  # fmt: skip


def write(name: str, data: Dataset, replicates: Replicates, sizes: dict[str, int]) -> None:
    """Writes predictions and history of every method below the current folder."""
    for method in data.methods:
        for first, last in chunks(replicates):
            folder = Path(layout.run(name, method, first, last))
            folder.mkdir(parents=True, exist_ok=True)
            frame(method, range(first, last + 1), sizes, len(data.classes)).write_parquet(folder / "predictions.parquet")
            tensors = {f"seed{seed}/{part}": torch.zeros(3, 4) for seed in range(first, last + 1) for part in ("a", "b")}
            io.write_tensors(folder / "weights.safetensors", tensors | {"standard/t": torch.zeros(7)}, {"method": method})
