"""Which module of this package finds the core masks of an editor, and what it needs for that."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from causalroute.config import Editor
from causalroute.counterfactual.image import random, truth
from causalroute.counterfactual.posts import Posts
from causalroute.counterfactual.sources import Sources
from causalroute.data.images import open_image
from causalroute.errors import UserError

CELLS = 4
"""Mask cells per grid patch and axis."""


def find(rows: pl.DataFrame, posts: Posts, core_texts: list[str], editor: Editor, sources: Sources) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Core masks (M, m, m) and thumbnails (M, m, m, 3) of the M posts `rows`, all of which have an image.

    Raises:
        UserError: the module needs something that `sources` lacks, or an image cannot be read.
    """
    side, paths = CELLS * editor.grid, rows["image"].to_list()

    def image(row: int) -> Image.Image:
        return open_image(sources.root, paths[row])

    if editor.image == "saliency":
        return _salient(posts, core_texts, editor, sources, image)
    if editor.image == "random":
        masks = random.find_cores(posts.ids, editor.core_share, side, editor.seed)
    elif sources.truth is None:
        raise UserError("the image editor 'truth' needs known truth", where="editors: image", fix="use 'saliency' on data without known truth")
    else:
        masks = truth.find_cores(posts.ids, sources.truth, side)
    return masks, np.stack([np.asarray(image(row).resize((side, side), Image.Resampling.BOX)) for row in range(len(paths))])


def _salient(
    posts: Posts,
    core_texts: list[str],
    editor: Editor,
    sources: Sources,
    image: Callable[[int], Image.Image],
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """The saliency editor: the only part of this package that loads a model."""
    import torch

    from causalroute.counterfactual.image import saliency
    from causalroute.features.backbone import load_backbone

    if sources.backbone is None:
        raise UserError("the image editor 'saliency' needs a backbone", where="editors: image", fix="pass --backbone")
    backbone = load_backbone(*sources.backbone)
    encode = getattr(backbone, "project_image", None)
    if encode is not None:
        directions = saliency.text_directions(backbone, core_texts)
    elif sources.features is None:
        raise UserError("the saliency editor of an encoder pair needs factual features", fix="make features/{dataset}/{backbone}/factual.safetensors first")
    elif not backbone.has_images:
        raise UserError("the posts have images and the backbone has no image tower", where="backbones", fix="set image_model, or use a dual encoder")
    else:
        encode = backbone.encode_images
        text, visual = (torch.from_numpy(found) for found in sources.features(posts.ids))
        directions = saliency.interaction_directions(posts, text, visual, editor.seed)
    return saliency.find_cores(backbone, image, directions, encode, editor.core_share, CELLS * editor.grid, sources.threads)
