"""One row of counterfactuals per post: text side and visual side put together. The file format is that of docs/counterfactuals.md."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from PIL import Image

from causalroute.config import Editor
from causalroute.counterfactual.corrupt import ERRORS, corrupt_images, corrupt_texts
from causalroute.counterfactual.image import edit_images
from causalroute.counterfactual.image.find import find
from causalroute.counterfactual.image.truth import redraw
from causalroute.counterfactual.pixels import REFERENCE_SIDE, reference
from causalroute.counterfactual.posts import Posts, edited, posts_of
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.text import edit_texts, flips
from causalroute.counterfactual.text import find as find_context
from causalroute.counterfactual.views import EXACT, REDRAWN, overlays_of, visual_side
from causalroute.data.images import open_image
from causalroute.rng import generator

REFERENCE_IMAGES = 512
"""Train images that the reference is the mean of, at most."""
COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "id": pl.String,
    "t_s": pl.String,
    "t_c": pl.String,
    "t_swap": pl.List(pl.String),
    "t_flip": pl.String,
    "t_donor": pl.List(pl.String),
    "context_spans": pl.List(pl.Struct({"start": pl.Int32, "end": pl.Int32})),
    "mask": pl.Binary,
    "mask_side": pl.Int32,
    "v_donor": pl.List(pl.String),
    "fill": pl.String,
    "level": pl.String,
    "attr_s": pl.String,
    "attr_c": pl.String,
    "attr_swap": pl.List(pl.String),
    "text_mask_ratio": pl.Float32,
    "image_mask_ratio": pl.Float32,
    "text_edit_distance": pl.Float32,
    "text_ok": pl.Boolean,
    "image_ok": pl.Boolean,
}


def build(manifest: pl.DataFrame, editor: Editor, sources: Sources) -> pl.DataFrame:
    """Counterfactuals of every post but the oracle's, in manifest order, with the columns COLUMNS; those of a corrupted editor have ERRORS too.

    Raises:
        UserError: the editor needs something that `sources` lacks, or the posts cannot be used.
    """
    rows = edited(manifest)
    posts = posts_of(rows)
    found = find_context(posts, editor, sources)
    made = edit_texts(posts, found.marks, editor.swaps, editor.seed, unusable=found.failures, style=editor.style)
    table = corrupt_texts(made, posts, found.marks, editor.corrupt)
    table = table.with_columns(pl.Series("t_flip", flips(posts, found, sources), pl.String))
    side = visual_side(rows)
    if side == "image":
        table = table.hstack(_images(rows, table["t_c"], editor, sources))
    elif side == "attributes":
        table = table.hstack(_attributes(posts_of(rows, "attributes"), editor, sources))
    table = table.with_columns(rows["id"])
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in COLUMNS.items() if name not in table.columns]
    errors = [name for name in ERRORS if name in table.columns]
    return table.with_columns(missing).with_columns(pl.col("image_ok").fill_null(False)).select(*COLUMNS, *errors)


def _attributes(posts: Posts, editor: Editor, sources: Sources) -> pl.DataFrame:
    """The visual side where it is a list of words."""
    found = find_context(posts, editor, sources, "attributes")
    made = edit_texts(posts, found.marks, editor.swaps, editor.seed, "attributes", unusable=found.failures)
    edited_words = corrupt_texts(made, posts, found.marks, editor.corrupt, "attributes")
    names = {"t_s": "attr_s", "t_c": "attr_c", "t_swap": "attr_swap", "t_donor": "v_donor", "text_mask_ratio": "image_mask_ratio", "text_ok": "image_ok"}
    names["text_error"] = "image_error"
    return edited_words.select(pl.col(old).alias(new) for old, new in names.items() if old in edited_words.columns)


def _images(rows: pl.DataFrame, core_texts: pl.Series, editor: Editor, sources: Sources) -> pl.DataFrame:
    """The visual side where it is images; a post without one has no mask, its own id for donors, and is never swapped."""
    has = rows["image"].is_not_null()
    shown = rows.filter(has)
    posts = posts_of(shown, what="the train posts with an image belong to")
    if editor.image == "truth" and "overlay" in shown.columns:
        made, level = redraw(posts, overlays_of(shown), editor), REDRAWN
    else:
        masks, thumbnails = find(shown, posts, core_texts.filter(has).to_list(), editor, sources)
        made = edit_images(posts, masks, thumbnails, editor.swaps, editor.seed, editor.fill)
        level = EXACT if editor.image == "places" and editor.level == "pixels" else editor.level
    made = corrupt_images(made, posts, editor.corrupt).with_columns(shown["id"], level=pl.lit(level))
    own = pl.concat_list([pl.col("id")] * editor.swaps)
    every = rows.select("id").join(made, on="id", how="left", maintain_order="left")
    return every.with_columns(pl.col("v_donor").fill_null(own), pl.col("image_ok").fill_null(False)).drop("id")


def reference_of(manifest: pl.DataFrame, root: Path) -> Image.Image:
    """The reference image: the mean of at most REFERENCE_IMAGES train images, drawn from a fixed substream; plain grey where there are no images."""
    if visual_side(manifest) != "image":
        return Image.new("RGB", (REFERENCE_SIDE, REFERENCE_SIDE), (128, 128, 128))
    shown = manifest.filter((pl.col("split") == "train") & pl.col("image").is_not_null())
    paths, overlays = shown["image"].to_list(), overlays_of(shown)
    chosen = sorted(generator(0, "reference").permutation(len(paths))[:REFERENCE_IMAGES].tolist())
    return reference(open_image(root, paths[row], overlay=overlays[row]) for row in chosen)
