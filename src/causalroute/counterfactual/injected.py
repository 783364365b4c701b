"""Grades of counterfactuals of injected data: the cues are known, the core of a real post is not.

    text, attribute words    recall: injected words marked as context (texts alone); failed: a swap still holds the injected word of the post's own cue
    image                    same background: the donor's mark is the post's own; background kept: share of the mark that is shown in a swap;
                             failed: either, the latter above LEAKED

Posts without a cue (split clean) have nothing that could fail.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from causalroute.counterfactual.pixels import inner, unpack_mask
from causalroute.counterfactual.text.truth import overlap
from causalroute.counterfactual.tokens import tokenize
from causalroute.counterfactual.views import EXACT, REDRAWN
from causalroute.data.overlays import parts, region

LEAKED = 0.25
"""A swap that shows more of the own mark has failed."""


def grades(counterfactuals: pl.DataFrame, manifest: pl.DataFrame, truth: pl.DataFrame) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the text side and the visual side did to the injected cues.

    Args:
        counterfactuals: M rows of one editor.
        manifest: for texts, attribute words and marks.
        truth: rows for each post.
    """
    columns = ["id", "text", *(name for name in ("attributes", "overlay") if name in manifest.columns)]
    rows = counterfactuals.join(manifest.select(columns), on="id", how="left", maintain_order="left").join(truth, on="id", how="inner", maintain_order="left")
    text = _words(rows.filter(pl.col("cue_text").is_not_null()), "text", "cue_spans", "cue_text", "t_swap")
    seen = rows.filter(pl.col("cue_image").is_not_null())
    if not seen.height:
        return text, {}
    if seen["mask"].null_count() == seen.height:
        return text, _words(seen, "attributes", "attribute_spans", "cue_image", "attr_swap")
    return text, _marks(seen, dict(zip(rows["id"], rows["cue_image"], strict=True)))


def _words(rows: pl.DataFrame, column: str, spans: str, cue: str, swap: str) -> dict[str, Any]:
    """Of the injected words of a text column."""
    found = marked = failed = swaps = 0
    for row in rows.select(column, spans, cue, swap, "context_spans").iter_rows(named=True):
        tokens = tokenize(row[column])
        true = overlap(tokens, row[spans])
        own = {tokens[i].key for i in np.flatnonzero(true)}
        found, marked = found + int(true.sum()), marked + int((true & overlap(tokens, row["context_spans"])).sum())
        swaps += len(row[swap])
        failed += sum(bool(own & {token.key for token in tokenize(text)}) for text in row[swap])
    shares = {"failed": failed / max(1, swaps)}
    return shares | {"recall": marked / max(1, found)} if column == "text" else shares


def _marks(rows: pl.DataFrame, cues: dict[str, int | None]) -> dict[str, Any]:
    """Of the marks on images; `cues` is the mark's class by post."""
    kept, same = [], []
    for row in rows.select("mask", "mask_side", "level", "overlay", "v_donor", "cue_image").iter_rows(named=True):
        mask = unpack_mask(row["mask"], row["mask_side"])
        shown = mask if row["level"] == EXACT else inner(mask)
        mark = region(parts(row["overlay"])[0], row["mask_side"])
        kept.append(0.0 if row["level"] == REDRAWN else float(shown[mark].mean()))
        same.append([cues[donor] == row["cue_image"] for donor in row["v_donor"]])
    failed = np.array(same) | (np.array(kept) > LEAKED)[:, None]
    return {"background_kept": float(np.mean(kept)), "same_background": float(np.mean(same)), "failed": float(failed.mean())}
