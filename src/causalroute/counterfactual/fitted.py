"""An editor as the train split left it: all that it takes to edit a post that was not there then.

What an editor fits are a few sets of words and a small head; what it looks at besides is the backbone. Editors that know the posts they were made for
(`truth`, `random`) or that need a second model (`llm`) cannot be kept so. Letters: M posts, m cells per axis of a mask, Dt and Dv widths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from PIL import Image

from causalroute.config import Editor
from causalroute.counterfactual.image import centre, maps
from causalroute.counterfactual.image.answers import of_head, of_towers
from causalroute.counterfactual.image.find import CELLS, LOOKING
from causalroute.counterfactual.image.vanilla import Fusion, fit_fusion
from causalroute.counterfactual.pixels import unpack_mask
from causalroute.counterfactual.posts import Posts, edited, posts_of
from causalroute.counterfactual.text import lexicon, surface
from causalroute.counterfactual.text.swap import sides_of
from causalroute.counterfactual.tokens import Token, tokenize
from causalroute.counterfactual.views import visual_side
from causalroute.errors import UserError
from causalroute.features.window import Window

Features = Callable[[Sequence[str]], tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclasses.dataclass(frozen=True)
class Words:
    """Which tokens of a text are context."""

    rule: Literal["lexicon", "surface"]
    """by key and kind, or by form alone"""
    keys: tuple[str, ...] = ()
    """token keys that are context"""
    kinds: tuple[str, ...] = ()
    """surface kinds all of whose tokens are"""
    style: bool = False
    """as in `Editor`"""

    def mark(self, text: str) -> tuple[list[Token], NDArray[np.bool_]]:
        """The tokens of a text, and which of them are context."""
        tokens = tokenize(text)
        if self.rule == "surface":
            return tokens, surface.mark_tokens(tokens)
        return tokens, lexicon.Lexicon(frozenset(self.keys), frozenset(self.kinds)).mark([tokens])[0]

    def sides(self, text: str) -> tuple[str, str]:
        """t_s and t_c of a text."""
        return sides_of(text, *self.mark(text), self.style)


@dataclasses.dataclass(frozen=True)
class Cores:
    """Where the core of an image is."""

    module: str
    """of `counterfactual.image`"""
    share: float
    """share of the image that starts as core"""
    side: int
    """m"""
    fusion: Fusion | None = None
    """what an encoder pair is asked through"""
    mask: NDArray[np.bool_] | None = None
    """(m, m), for an editor that finds the same in every image"""

    def find(
        self, backbone: Any, images: Sequence[Image.Image], core_texts: Sequence[str], text: torch.Tensor, image: torch.Tensor, window: Window | None = None
    ) -> NDArray[np.bool_]:
        """Core masks of M images: (M, m, m), True = core.

        Args:
            backbone: as it was when the editor was fitted.
            images: RGB.
            core_texts: t_c of each.
            text: (M, Dt) factual text features.
            image: (M, Dv) factual image features.
            window: as in `maps.find_cores`.
        """
        if self.mask is not None:
            return np.repeat(self.mask[None], len(images), axis=0)
        answers = of_towers(backbone, core_texts) if self.fusion is None else of_head(backbone, self.fusion.beside(text, image))
        heat = import_module(f"causalroute.counterfactual.image.{self.module}").heat_of(answers)
        masks, _ = maps.find_cores(backbone, images.__getitem__, len(images), heat, self.share, self.side, window=window)
        return masks


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Both sides of an editor."""

    text: Words
    attributes: Words | None
    """where the visual side is words"""
    image: Cores | None
    """where it is images"""
    fill: str
    """what a core is filled with in v_s"""
    rim: bool
    """whether masks have a rim that is never shown"""

    def saved(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """JSON and tensors, as `restored` takes them."""
        told = {"text": vars(self.text), "attributes": self.attributes and vars(self.attributes), "fill": self.fill, "rim": self.rim, "image": None}
        if self.image is None:
            return told, {}
        tensors = {} if self.image.fusion is None else self.image.fusion.tensors()
        tensors |= {} if self.image.mask is None else {"mask": torch.from_numpy(self.image.mask.copy())}
        return told | {"image": {"module": self.image.module, "share": self.image.share, "side": self.image.side}}, tensors


def restored(told: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Fitted:
    """The editor that `Fitted.saved` told of."""

    def words(found: Mapping[str, Any]) -> Words:
        return Words(found["rule"], tuple(found["keys"]), tuple(found["kinds"]), found["style"])

    fusion = Fusion.of(tensors) if "head.0.weight" in tensors else None
    mask = tensors["mask"].numpy() if "mask" in tensors else None
    image = Cores(**told["image"], fusion=fusion, mask=mask) if told["image"] else None
    return Fitted(words(told["text"]), words(told["attributes"]) if told["attributes"] else None, image, told["fill"], told["rim"])


def fit(manifest: pl.DataFrame, counterfactuals: pl.DataFrame, editor: Editor, features: Features | None) -> Fitted:
    """The editor as it was when it made `counterfactuals`.

    Args:
        manifest: of the data set; labels of its train split are read.
        counterfactuals: what the editor made of it.
        editor: settings.
        features: ids -> factual features; None for a dual encoder, whose towers are asked directly.

    Raises:
        UserError: the editor cannot be kept.
    """
    rows = edited(manifest)
    _require_keepable(editor)
    posts = posts_of(rows)
    side = visual_side(rows)
    attributes = _words(posts_of(rows, "attributes"), editor, None) if side == "attributes" else None
    image = _cores(rows.filter(pl.col("image").is_not_null()), counterfactuals, editor, features) if side == "image" else None
    return Fitted(_words(posts, editor, counterfactuals["context_spans"]), attributes, image, editor.fill, editor.image != "places")


def _require_keepable(editor: Editor) -> None:
    fixes = {"truth": "it knows these very posts alone", "random": "it is a control", "llm": "it needs its language model beside the backbone"}
    for name in (editor.text, editor.image):
        if name in fixes:
            fix = "train with an editor such as lexicon and saliency, and save that model"
            raise UserError(f"the editor {name!r} cannot edit further posts: {fixes[name]}", where="params.yaml: editors", fix=fix)
    if editor.level == "patches":
        fix = "train with an editor of level pixels, and save that model"
        raise UserError("views pooled from patch features cannot be made of single posts", where="params.yaml: editors", fix=fix)


def _words(posts: Posts, editor: Editor, spans: pl.Series | None) -> Words:
    if editor.text == "surface":
        return Words("surface", style=editor.style)
    if editor.text == "occlusion" and spans is not None:  # what it found is in its spans; finding it again would cost thousands of passes
        marked = {token.key for tokens, found in zip(posts.tokens, spans, strict=True) for token in _within(tokens, found)}
        return Words("lexicon", tuple(sorted(marked)), style=editor.style)
    if editor.text == "occlusion":
        fix = "use the text editor 'lexicon' or 'surface'"
        raise UserError("the text editor 'occlusion' cannot be kept for attribute words", where="params.yaml: editors", fix=fix)
    found = lexicon.fit(posts, editor.z)
    return Words("lexicon", tuple(sorted(found.keys)), tuple(sorted(found.kinds)), editor.style)


def _within(tokens: Sequence[Token], spans: Sequence[Mapping[str, int]]) -> list[Token]:
    starts = {span["start"] for span in spans}
    return [token for token in tokens if token.start in starts]


def _cores(shown: pl.DataFrame, counterfactuals: pl.DataFrame, editor: Editor, features: Features | None) -> Cores:
    side = CELLS * editor.grid
    if editor.image == "centre":
        return Cores("centre", editor.core_share, side, mask=centre.find_cores(1, editor.core_share, side)[0])
    if editor.image == "places":
        bits, cells = counterfactuals.filter(pl.col("mask").is_not_null()).select("mask", "mask_side").row(0)
        return Cores("places", editor.core_share, side, mask=unpack_mask(bits, cells))
    assert editor.image in LOOKING, editor.image
    if features is None:
        return Cores(editor.image, editor.core_share, side)
    posts = posts_of(shown, what="the train posts with an image belong to")
    text, image = (torch.from_numpy(found) for found in features(posts.ids))
    return Cores(editor.image, editor.core_share, side, fit_fusion(posts, text, image, editor.seed))
