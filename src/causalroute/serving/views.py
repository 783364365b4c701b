"""The views of new posts: text and image edited by the fitted editor, read by the frozen backbone. Letters: M posts, m mask cells per axis."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from causalroute.counterfactual.fitted import Cores, Fitted
from causalroute.counterfactual.image.edit import USABLE
from causalroute.counterfactual.pixels import fill_core
from causalroute.counterfactual.tokens import Token
from causalroute.counterfactual.views import stout
from causalroute.data.images import MAX_PIXELS, open_image, upright
from causalroute.serving.encoder import Encoder
from causalroute.serving.posts import Post

Marked = tuple[list[Token], NDArray[np.bool_]]
Blank = tuple[Image.Image, Tensor]
"""The reference image and its features (Dv,)."""


class Encoders:
    """The frozen models of a saved model.

    Args:
        reads: whose features the method takes.
        looker: loads the one that finds the cores of images; None where it is the same.
    """

    def __init__(self, reads: Encoder, looker: Callable[[], Encoder] | None) -> None:
        self.reads, self._looker = reads, looker

    @functools.cached_property
    def looks(self) -> Encoder:
        """Which finds the cores of images; loaded when it is first asked for."""
        return self.reads if self._looker is None else self._looker()


@dataclass(frozen=True)
class Views:
    """What is known of M posts."""

    texts: list[str]
    t: Tensor
    """(M, Dt)"""
    v: Tensor
    """(M, Dv)"""
    more: dict[str, Tensor] = field(default_factory=dict)
    """t_s (M, Dt) and v_s (M, Dv), where something asks for them; k (M, Dk), where the backbone reads both sides together"""
    marks: list[Marked] | None = None
    """tokens and which of them are context, where an editor marks them"""
    masks: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    """row -> core mask (m, m), of posts with an image"""
    warnings: list[tuple[str, ...]] = field(default_factory=list)


def read(posts: Sequence[Post], encoders: Encoders, editor: Fitted | None, blank: Blank | None, *, contexts: bool, explain: bool) -> Views:
    """The views of M posts.

    Args:
        posts: checked ones.
        encoders: the backbone, and what looks for cores.
        editor: of the model; None where it has none.
        blank: stands in for a missing image; None where the visual side is no image.
        contexts: t_s and v_s are wanted.
        explain: words and masks are wanted.

    Raises:
        ImageError: an image cannot be used.
    """
    texts, encoder = [post.text for post in posts], encoders.reads
    wanted = editor if contexts or explain else None
    kept = [wanted.text.sides(text)[0] for text in texts] if contexts and wanted is not None else []
    both, cut = encoder.texts([*texts, *kept])  # in one pass: a context is about as long as its text
    t, found = both[: len(texts)], ({"t_s": both[len(texts) :]} if kept else {})
    warning = f"the text is longer than the {encoder.longest} tokens that the backbone reads: the rest was cut off"
    warnings: list[list[str]] = [[warning] if one else [] for one in cut[: len(texts)]]
    if blank is None:
        v, more, masks = _words(posts, encoder, wanted, contexts)
    else:
        v, more, masks = _images(posts, encoders, wanted, blank, t, warnings, contexts)
    marks = [wanted.text.mark(text) for text in texts] if wanted is not None else None
    return Views(texts, t, v, found | more, marks, masks, [tuple(told) for told in warnings])


def _words(posts: Sequence[Post], encoder: Encoder, editor: Fitted | None, contexts: bool) -> tuple[Tensor, dict[str, Tensor], dict[int, Any]]:
    """The visual side where it is attribute words, or the empty text."""
    words = [post.attributes or "" for post in posts]
    v, _ = encoder.texts(words)
    if not contexts or editor is None:
        return v, {}, {}
    kept = [editor.attributes.sides(one)[0] if editor.attributes else "" for one in words]
    return v, {"v_s": encoder.texts(kept)[0]}, {}


def _images(
    posts: Sequence[Post], encoders: Encoders, editor: Fitted | None, blank: Blank, t: Tensor, warnings: list[list[str]], contexts: bool
) -> tuple[Tensor, dict[str, Tensor], dict[int, NDArray[np.bool_]]]:
    """The visual side where it is images; a post without one has the reference image in every view."""
    encoder = encoders.reads
    shown = {row: opened(post.image) for row, post in enumerate(posts) if post.image is not None}
    for row in set(range(len(posts))) - set(shown):
        warnings[row].append("no image: the blurred mean image of the training posts stands in for it")
    v = blank[1].repeat(len(posts), 1)
    rows = list(shown)
    if rows:
        v[rows] = encoder.images(list(shown.values()))
    k = encoder.pairs([post.text for post in posts], [shown.get(row, blank[0]) for row in range(len(posts))])
    joint = {} if k is None else {"k": k}
    if editor is None or editor.image is None or not rows:
        return v, joint | ({"v_s": v} if contexts else {}), {}
    masks = dict(zip(rows, _cores(encoders, editor, editor.image, [posts[row].text for row in rows], list(shown.values()), (t[rows], v[rows])), strict=True))
    for row, mask in masks.items():
        if not USABLE[0] <= mask.mean() <= USABLE[1]:
            warnings[row].append("no core was found in the image")
    if not contexts:
        return v, joint, masks
    v_s = v.clone()
    v_s[rows] = encoder.images([fill_core(shown[row], masks[row], editor.fill) for row in rows])
    return v, joint | {"v_s": v_s}, masks


def _cores(encoders: Encoders, editor: Fitted, cores: Cores, texts: list[str], images: list[Image.Image], features: tuple[Tensor, Tensor]) -> NDArray[np.bool_]:
    """Core masks of posts with an image (n, m, m); `features` are theirs by the encoder that reads."""
    looks = encoders.looks
    if looks is not encoders.reads and cores.fusion is not None:  # which compares features of the encoder that looks
        features = looks.texts(texts)[0], looks.images(images)
    return cores.find(looks.backbone, images, [editor.text.sides(text)[1] for text in texts], *features, looks.window)


def opened(image: Path | Image.Image) -> Image.Image:
    """RGB, upright and not too thin, as training saw its images.

    Raises:
        ImageError: the file is missing, no image, damaged or too large.
    """
    if isinstance(image, Image.Image):
        return stout(upright(image, MAX_PIXELS))
    return stout(open_image(image.parent, image.name))
