"""What a backbone answers to an image beside its text: the scalar whose causes the editors look for.

- dual encoder: the similarity u . h(x) of the image h(x) with the post's own core text u (t_c); t* is a text whose every word is masked;
- encoder pair: the logit f(t, v) of a small vanilla fusion head for the class it predicts (`vanilla.py`); t* is the mean text.

Letters: M posts, B of them in a batch, D width of the answer's features.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from causalroute.counterfactual.image.task import Task
from causalroute.counterfactual.image.vanilla import Vanilla, train_vanilla
from causalroute.counterfactual.views import MASK
from causalroute.errors import UserError
from causalroute.features.backbone import Backbone, load_backbone

Encode = Callable[[torch.Tensor], torch.Tensor]
Scores = Callable[[list[int], torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclasses.dataclass(frozen=True)
class Answers:
    """A backbone, and what it says to M posts."""

    backbone: Backbone
    """prepares the pixels"""
    encode: Encode
    """pixels (B, 3, H, W) -> image features (B, D), differentiable"""
    directions: torch.Tensor
    """(M, D): u; gradient of what the image adds to the text, with respect to the image features"""
    scores: Scores
    """rows and image features (B, D) -> the answer with the text and without it, (B,) each"""
    shared_space: bool
    """a dual encoder: texts and patches can be compared"""


def answers_of(task: Task) -> Answers:
    """Loads the backbone and asks it.

    Raises:
        UserError: there is no backbone, it has no image tower, or an encoder pair comes without factual features.
    """
    sources = task.sources
    if sources.backbone is None:
        raise UserError("an image editor that looks at a model needs a backbone", where="editors: image", fix="pass --backbone")
    backbone: Any = load_backbone(*sources.backbone)
    if hasattr(backbone, "project_image"):
        return of_towers(backbone, task.core_texts)
    if not backbone.has_images:
        raise UserError("the posts have images and the backbone has no image tower", where="backbones", fix="set image_model, or use a dual encoder")
    if sources.features is None:
        raise UserError("this image editor needs the factual features of an encoder pair", fix="make features/{dataset}/{backbone}/factual.safetensors first")
    text, visual = (torch.from_numpy(found) for found in sources.features(task.posts.ids))
    return of_head(backbone, train_vanilla(task.posts, text, visual, task.seed))


def of_towers(backbone: Any, core_texts: Sequence[str]) -> Answers:
    """What a dual encoder says to M posts with these core texts."""
    directions = text_directions(backbone, core_texts)
    blank = functools.cache(lambda: text_directions(backbone, [MASK])[0])  # few editors ask for it
    return Answers(backbone, backbone.project_image, directions, _similarities(directions, blank), True)


def of_head(backbone: Any, vanilla: Vanilla) -> Answers:
    """What an encoder pair says through a fusion head to the posts beside it."""
    return Answers(backbone, backbone.encode_images, vanilla.gradients(), vanilla.answers, False)


def _similarities(directions: torch.Tensor, blank: Callable[[], torch.Tensor]) -> Scores:
    def scores(rows: list[int], features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (features * directions[rows]).sum(1), features @ blank()

    return scores


def text_directions(backbone: Any, texts: Sequence[str]) -> torch.Tensor:
    """M texts in the shared space of a dual encoder: (M, D)."""
    encoded = backbone.tokenize_many(texts)
    order = sorted(range(len(texts)), key=lambda row: len(encoded[row].ids))
    found: list[torch.Tensor | None] = [None] * len(texts)
    with torch.no_grad():
        for rows in _buckets(order, encoded, backbone.batch_size):
            for row, vector in zip(rows, backbone.project_text(*backbone.collate([encoded[row] for row in rows])), strict=True):
                found[row] = vector
    return torch.stack([vector for vector in found if vector is not None])


def _buckets(order: list[int], encoded: Sequence[Any], size: int) -> Iterator[list[int]]:
    """Rows in batches that share a length bucket."""
    batch: list[int] = []
    for row in order:
        if batch and (len(batch) == size or encoded[row].bucket != encoded[batch[0]].bucket):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
