"""Which module of this package finds the core masks of an editor.

An editor is a module named as in `editors: image` with one public function, and a line here. Those of BLIND never look at a model; those of LOOKING give the
heat of a batch, from which `maps.find_cores` makes masks.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from causalroute.config import Editor
from causalroute.counterfactual.image import centre, places, random, truth
from causalroute.counterfactual.image.task import Found, Task
from causalroute.counterfactual.posts import Posts
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.views import overlays_of
from causalroute.data.images import open_image
from causalroute.errors import UserError

CELLS = 4
"""Mask cells per grid patch and axis."""


def find(rows: pl.DataFrame, posts: Posts, core_texts: list[str], editor: Editor, sources: Sources) -> Found:
    """Core masks (M, m, m) and thumbnails (M, m, m, 3) of the M posts `rows`, all of which have an image.

    Raises:
        UserError: the module needs something that `sources` lacks, or an image cannot be read.
    """
    paths, overlays = rows["image"].to_list(), overlays_of(rows)

    def image(row: int) -> Image.Image:
        return open_image(sources.root, paths[row], overlay=overlays[row])

    task = Task(posts, core_texts, image, sources, editor.core_share, CELLS * editor.grid, editor.seed)
    return BLIND[editor.image](task) if editor.image in BLIND else _looking(task, editor.image)


def _looking(task: Task, name: str) -> Found:
    """The editors that load a model."""
    from causalroute.counterfactual.image import maps
    from causalroute.counterfactual.image.answers import answers_of

    answers = answers_of(task)
    heat = import_module(f"causalroute.counterfactual.image.{name}").heat_of(answers)
    return maps.find_cores(answers.backbone, task.image, len(task.posts.ids), heat, task.share, task.side, task.sources.threads)


def _random(task: Task) -> Found:
    return random.find_cores(task.posts.ids, task.share, task.side, task.seed), _thumbnails(task)


def _centre(task: Task) -> Found:
    return centre.find_cores(len(task.posts.ids), task.share, task.side), _thumbnails(task)


def _truth(task: Task) -> Found:
    if task.sources.truth is None:
        raise UserError("the image editor 'truth' needs known truth", where="editors: image", fix="use 'saliency' on data without known truth")
    return truth.find_cores(task.posts.ids, task.sources.truth, task.side), _thumbnails(task)


def _places(task: Task) -> Found:
    thumbnails = _thumbnails(task)
    return places.find_cores(task.posts, thumbnails), thumbnails


def _thumbnails(task: Task) -> NDArray[np.uint8]:
    size = (task.side, task.side)
    return np.stack([np.asarray(task.image(row).resize(size, Image.Resampling.BOX)) for row in range(len(task.posts.ids))])


BLIND: dict[str, Callable[[Task], Found]] = {"random": _random, "centre": _centre, "places": _places, "truth": _truth}
LOOKING = ("saliency", "attention", "similarity", "occlusion")
