"""Posts for tests of the gate and the gallery: an exclusive-or task with a known core and a known cue on each side, as features and as words."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from causalroute.config import Gate
from causalroute.counterfactual.build import COLUMNS
from causalroute.counterfactual.judged import Judged, judged_posts

SETTINGS = Gate(min_posts=50, folds=3)
WIDTH = 6
Posts = tuple[pl.DataFrame, pl.DataFrame, dict[str, Any], dict[str, Any]]
CUES, CORES = (("#east", "#west"), ("#north", "#south")), ("good", "awful")


def features(core: np.ndarray, cue: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(n, WIDTH): one feature tells the core, one the cue, the others nothing."""
    x = 0.3 * random.normal(size=(len(core), WIDTH))
    x[:, 0] += 2.0 * core - 1
    x[:, 1] += 2.0 * cue - 1
    return x


def posts(
    items: int = 700, *, bad: str = "", side: str = "text", seed: int = 0, trust: float = 0.85
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any], dict[str, Any]]:
    """Manifest, counterfactuals, factual features, views. The label is core xor core; each cue agrees with it with probability `trust`.

    Args:
        items: posts.
        bad: what is wrong with the swaps of `side`: "" nothing, "destroyed" the core is the donor's, "idle" the cue stays, "odd" they bear a mark.
        side: text or image.
        seed: of the draw.
        trust: how often a cue agrees with the label.
    """
    random = np.random.default_rng(seed)
    core = {one: random.integers(2, size=items) for one in "tv"}
    label = core["t"] ^ core["v"]
    cue = {one: np.where(random.random(items) < trust, label, 1 - label) for one in "tv"}
    swap = {one: (core[one].copy(), 1 - cue[one]) for one in "tv"}
    letter = {"text": "t", "image": "v"}[side]
    if bad == "destroyed":
        swap[letter] = (random.integers(2, size=items), 1 - cue[letter])
    if bad == "idle":
        swap[letter] = (core[letter], cue[letter])
    factual = {one: features(core[one], cue[one], random) for one in "tv"}
    views: dict[str, Any] = {"rows": np.arange(items)}
    for one in "tv":
        real, half = factual[one], np.full(items, 0.5)
        views |= {f"{one}_s": features(half, cue[one], random), f"{one}_c": features(core[one], half, random)}
        made = real.copy()  # with its noise: only core and cue change
        made[:, 0] += 2.0 * (swap[one][0] - core[one])
        made[:, 1] += 2.0 * (swap[one][1] - cue[one])
        if bad == "odd" and one == letter:
            made[:, 5] += 5
        views[f"{one}_swap"] = made[:, None]
    texts = _texts(core["t"], cue["t"], random)
    swapped = _texts(*swap["t"], random)
    if bad == "odd" and side == "text":
        swapped = [f"{text} edited" for text in swapped]
    return _manifest(texts, label), _table(texts, swapped), factual, views


def _texts(core: np.ndarray, cue: np.ndarray, random: np.random.Generator) -> list[str]:
    return [f"{CORES[a]} bus number{random.integers(40)} {CUES[b][random.integers(2)]}" for a, b in zip(core, cue, strict=True)]


def _manifest(texts: list[str], labels: np.ndarray) -> pl.DataFrame:
    items = len(texts)
    names = [f"p{i}" for i in range(items)]
    split = ["valid" if i % 5 == 0 else "train" for i in range(items)]
    columns = {"id": names, "split": split, "text": texts, "image": [f"{i}.png" for i in range(items)], "label": labels.astype(np.int8)}
    return pl.DataFrame(columns).with_columns(pl.lit(None, pl.String).alias("attributes"), text_sha256=pl.col("id"), image_sha256=pl.col("id"))


def _table(texts: list[str], swapped: list[str]) -> pl.DataFrame:
    spans = [[{"start": text.index("#"), "end": len(text)}] for text in texts]
    rows = {
        "id": [f"p{i}" for i in range(len(texts))],
        "t_s": ["[MASK] [MASK] [MASK] " + text[text.index("#") :] for text in texts],
        "t_c": [text[: text.index("#")] + "[MASK]" for text in texts],
        "t_swap": [[text] for text in swapped],
        "context_spans": spans,
        "text_mask_ratio": [0.25] * len(texts),
        "image_mask_ratio": [0.3] * len(texts),
        "text_edit_distance": [0.25] * len(texts),
        "text_ok": [True] * len(texts),
        "image_ok": [True] * len(texts),
    }
    schema = {name: kind for name, kind in COLUMNS.items() if name in rows}
    frame = pl.DataFrame(rows, schema=schema)
    return frame.with_columns(pl.lit(None, kind).alias(name) for name, kind in COLUMNS.items() if name not in rows)


def judged(*arguments: Any, settings: Gate = SETTINGS, **named: Any) -> Judged:
    """The same, ready for the gate."""
    return judged_posts(*posts(*arguments, **named), settings)
