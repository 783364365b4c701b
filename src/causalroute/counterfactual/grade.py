"""How good counterfactuals are.

Always: share of usable swaps, mask ratios, edit distance, and how well a bag of words tells swapped texts from real ones (0.5 = not at all; a gain
after training on edits that are easily told may only mean "knows the editor").

Where the truth is known (planted data):

    text    F1 of context tokens against the true cue; core touched: a token of the true core is marked as context;
            failed: a cue value of the original is still in the swapped text
    image   IoU of the core mask against the ellipse in the true box; core cut: the mask covers less than COVERED of it;
            failed: the donor's true background is of the same family, or more than LEAKED of the own background came along

Of injected data the cue is known and the core is not: `injected.py` grades those.

A swap that destroys the core teaches the wrong label; a swap that fails teaches nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.counterfactual import injected
from causalroute.counterfactual.image.truth import ellipse
from causalroute.counterfactual.pixels import unpack_mask
from causalroute.counterfactual.text.truth import overlap
from causalroute.counterfactual.tokens import tokenize
from causalroute.rng import generator

COVERED = 0.8
"""A mask that covers a smaller share of the true core has destroyed it."""
LEAKED = 0.25
"""A swap that brings more of the own background along has failed."""
PROBED = 2000
"""Pairs of real and swapped text that the detectability probe sees, at most."""


def grade(counterfactuals: pl.DataFrame, manifest: pl.DataFrame, truth: pl.DataFrame) -> dict[str, Any]:
    """Grades of one editor.

    Args:
        counterfactuals: M rows of the editor.
        manifest: for the original texts.
        truth: rows for each post, or none where nothing is known.

    Returns:
        {"items", "text": {...}, "image": {...}}; values are fractions, numbers over all M posts and K swaps.
    """
    rows = counterfactuals.join(manifest.select("id", "text"), on="id", how="left", maintain_order="left")
    text: dict[str, Any] = _summary(rows, "text") | {"edit_distance": _mean(rows["text_edit_distance"]), "detectability": detectability(rows)}
    image: dict[str, Any] = _summary(rows, "image")
    if "attribute_spans" in truth.columns:
        known_text, known_image = injected.grades(counterfactuals, manifest, truth)
        text, image = text | known_text, image | known_image
    elif truth.height:
        known = rows.join(truth, on="id", how="inner", maintain_order="left")
        text |= _text_truth(known, truth)
        if rows["mask"].null_count() == 0:
            image |= _image_truth(known, truth)
    return {"items": rows.height, "text": text, "image": image}


def _mean(values: pl.Series) -> float | None:
    found = values.drop_nulls()
    return float(np.mean(found.to_numpy())) if len(found) else None


def _summary(rows: pl.DataFrame, side: str) -> dict[str, Any]:
    ratio = rows[f"{side}_mask_ratio"].drop_nulls().to_numpy()
    ends = [float(value) for value in np.quantile(ratio, [0.1, 0.9])] if len(ratio) else None
    return {"usable": _mean(rows[f"{side}_ok"]), "mask_ratio": float(ratio.mean()) if len(ratio) else None, "mask_ratio_p10_p90": ends}


def detectability(rows: pl.DataFrame) -> float | None:
    """Accuracy of a two-fold bag of words that tells the first swap from the original; both versions of a post share a fold."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    changed = rows.filter(pl.col("text_ok")).head(PROBED)
    if changed.height < 20:
        return None
    texts = changed["text"].to_list() + changed["t_swap"].list.first().to_list()
    keys = [" ".join(token.key for token in tokenize(text)) for text in texts]
    features = TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit_transform(keys)
    swapped = np.repeat([0, 1], changed.height)
    fold = np.tile(generator(0, "detectability").permutation(changed.height) % 2, 2)
    right = [
        (LogisticRegression(max_iter=1000).fit(features[fold != f], swapped[fold != f]).predict(features[fold == f]) == swapped[fold == f]) for f in (0, 1)
    ]
    return float(np.concatenate(right).mean())


def _text_truth(known: pl.DataFrame, truth: pl.DataFrame) -> dict[str, Any]:
    values = cue_values(truth, known)
    hit = marked = true = touched = failed = swaps = 0
    for row in known.select("text", "context_spans", "cue_spans", "core_spans", "cue_text", "t_swap").iter_rows(named=True):
        tokens = tokenize(row["text"])
        context, cue, core = (overlap(tokens, row[name]) for name in ("context_spans", "cue_spans", "core_spans"))
        hit, marked, true = hit + int((context & cue).sum()), marked + int(context.sum()), true + int(cue.sum())
        touched += bool((context & core).any())
        swaps += len(row["t_swap"])
        failed += sum(row["cue_text"] in {values.get(token.key) for token in tokenize(swap)} for swap in row["t_swap"])
    f1 = 2 * hit / max(1, marked + true)
    return {"f1": f1, "precision": hit / max(1, marked), "recall": hit / max(1, true), "core_touched": touched / known.height, "failed": failed / max(1, swaps)}


def cue_values(truth: pl.DataFrame, texts: pl.DataFrame) -> dict[str, int]:
    """Cue value that each true cue token stands for."""
    known = texts if "cue_spans" in texts.columns else texts.join(truth, on="id", how="inner")
    values: dict[str, int] = {}
    for row in known.select("text", "cue_spans", "cue_text").iter_rows(named=True):
        tokens = tokenize(row["text"])
        for i in np.flatnonzero(overlap(tokens, row["cue_spans"])):
            values[tokens[i].key] = row["cue_text"]
    return values


def _image_truth(known: pl.DataFrame, truth: pl.DataFrame) -> dict[str, Any]:
    value = dict(zip(truth["id"], truth["cue_image"], strict=True))
    ious, covered, leaked, same = [], [], [], []
    for row in known.select("mask", "mask_side", "core_box", "image_size", "v_donor", "cue_image").iter_rows(named=True):
        mask = unpack_mask(row["mask"], row["mask_side"])
        core = ellipse(np.array(row["core_box"]) / row["image_size"], row["mask_side"])
        ious.append((mask & core).sum() / max(1, (mask | core).sum()))
        covered.append((mask & core).sum() / max(1, core.sum()))
        leaked.append((mask & ~core).sum() / max(1, (~core).sum()))
        same.append([value[donor] == row["cue_image"] for donor in row["v_donor"]])
    return _image_figures(np.array(ious), np.array(covered), np.array(leaked), np.array(same))


def _image_figures(ious: NDArray[np.float64], covered: NDArray[np.float64], leaked: NDArray[np.float64], same: NDArray[np.bool_]) -> dict[str, Any]:
    """Figures of M posts; `same` is (M, K)."""
    failed = same | (leaked > LEAKED)[:, None]
    return {
        "iou": float(ious.mean()),
        "iou_p10": float(np.quantile(ious, 0.1)),
        "core_cut": float((covered < COVERED).mean()),
        "core_covered": float(covered.mean()),
        "background_kept": float(leaked.mean()),
        "same_background": float(same.mean()),
        "failed": float(failed.mean()),
    }
