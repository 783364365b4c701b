"""Posts beside their counterfactuals, made ready for a page: which posts, which words changed, small pictures, what a probe says before and after.

Train and validation posts only. The probe is a fusion probe on real posts, cross-fitted: no post is shown with the answer of a probe that has seen it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from causalroute.config import Gate
from causalroute.counterfactual.changes import Piece, blanks, compared, shorten, struck
from causalroute.counterfactual.fusion import Fusion
from causalroute.counterfactual.judged import Judged
from causalroute.counterfactual.pixels import unpack_mask
from causalroute.counterfactual.probes import Floats
from causalroute.counterfactual.views import view_inputs

if TYPE_CHECKING:
    from PIL import Image

SIDE = 144
"""Longer side of a picture in pixels."""
QUALITY = 70
"""JPEG quality: a picture takes about 4 kB."""
OUTLINE = (255, 0, 170)
"""Colour of the border between core and context, seldom found in photos."""
PAIRS = {"text swapped": ("t_swap", "v"), "image swapped": ("t", "v_swap"), "both swapped": ("t_swap", "v_swap"), "core only": ("t_c", "v_c")}
"""Which versions of text and image the probe reads, beside the original."""
REASONS = ("a side without usable swap", "largest effect", "least effect", "drawn at random")


@dataclass(frozen=True)
class Line:
    """One version of a text."""

    name: str
    pieces: list[Piece]


@dataclass(frozen=True)
class Shot:
    """One version of an image: a data URI and what it shows in words."""

    name: str
    source: str
    alt: str


@dataclass(frozen=True)
class Card:
    """One post as one editor sees it."""

    editor: str
    post: str
    label: str
    split: str
    why: str
    text_ok: bool
    image_ok: bool
    lines: list[Line]
    shots: list[Shot]
    chances: list[tuple[str, float]]
    """probability of the post's own label: original first"""


def cards(editor: str, posts: Judged, manifest: pl.DataFrame, table: pl.DataFrame, settings: Gate, **shown: Any) -> list[Card]:
    """Cards of one editor.

    Args:
        editor: its name.
        posts: the labelled posts with features.
        manifest: N rows.
        table: the editor's M counterfactuals.
        settings: seed of the probe.
        shown: `classes` (names), `root` (folder of the images), `reference` (file of the reference image), `count` (cards wanted).
    """
    chances = _chances(posts, settings)
    chosen = choose(posts, chances["original"] - chances["both swapped"], shown["count"])
    pictures = _Pictures(manifest, table, shown["root"], shown["reference"]) if posts.visual == "image" else None
    found = []
    for row, why in chosen:
        post = posts.rows.row(row, named=True)
        told = [(name, float(values[row])) for name, values in chances.items() if posts.visual != "none" or name in ("original", "text swapped", "core only")]
        flags = bool(post["text_ok"]), bool(post["image_ok"])
        shots = pictures.of(int(post["at"]), post) if pictures and post["image"] is not None and post["mask"] is not None else []
        found.append(Card(editor, post["id"], shown["classes"][posts.labels[row]], post["split"], why, *flags, _lines(post), shots, told))
    return found


def choose(posts: Judged, effect: Floats, count: int) -> list[tuple[int, str]]:
    """(row, why) of at most `count` posts: a quarter each of failures, largest and least effect and the first at hand, classes in turn."""
    usable = posts.usable("text") & (posts.usable("image") if posts.visual != "none" else True)
    orders = [np.flatnonzero(~usable), np.argsort(-effect, kind="stable"), np.argsort(effect, kind="stable"), np.arange(len(effect))]
    taken: dict[int, str] = {}
    for place, (why, order) in enumerate(zip(REASONS, orders, strict=True)):
        left = [row for row in order.tolist() if row not in taken and (why == REASONS[0] or usable[row])]
        queues = [[row for row in left if posts.labels[row] == label] for label in range(posts.classes)]
        turns = [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]
        share = (count - len(taken)) // (len(REASONS) - place)
        taken |= dict.fromkeys(turns[:share], why)
    return list(taken.items())


def _chances(posts: Judged, settings: Gate) -> dict[str, Floats]:
    """Probability of the own label by a probe that knows real posts alone: (n,) for the original and each of PAIRS."""
    views = {name: values[:, 0] if values.ndim == 3 else values for name, values in posts.views.items()}
    found = {name: np.zeros(len(posts.labels)) for name in ("original", *PAIRS)}
    for held_out in np.unique(posts.fold):
        out = posts.fold == held_out
        real = [views[name][~out][:, None] for name in ("t", "v")]
        probe = Fusion(posts.classes, settings.seed).fit(real[0], real[1], posts.labels[~out], np.ones(int((~out).sum())))
        for name, (text, image) in {"original": ("t", "v"), **PAIRS}.items():
            found[name][out] = probe.read(views[text][out], views[image][out])[np.arange(int(out.sum())), posts.labels[out]]
    return found


def _lines(post: dict[str, Any]) -> list[Line]:
    text = post["text"] or ""
    found = [Line("text", struck(text, post["context_spans"] or []))]
    if post["context_spans"]:
        found += [Line("context only", blanks(post["t_s"] or "")), Line("core only", blanks(post["t_c"] or ""))]
    found += [Line("swapped" if len(post["t_swap"]) == 1 else f"swapped {k}", compared(text, new or "")) for k, new in enumerate(post["t_swap"], 1)]
    if post.get("t_flip") is not None:
        found.append(Line("label flipped", compared(text, post["t_flip"])))
    if post["attr_swap"] is not None:
        words = post["attributes"] or ""
        found += [Line("attributes", [Piece("same", words)]), Line("attributes, core only", blanks(post["attr_c"] or ""))]
        found += [Line("attributes, swapped", compared(words, new or "")) for new in post["attr_swap"][:1]]
    return [Line(line.name, shorten(line.pieces)) for line in found]


class _Pictures:
    """Small pictures of every view of a post."""

    def __init__(self, manifest: pl.DataFrame, table: pl.DataFrame, root: Path, reference: Path) -> None:
        self.root = root
        self.swaps = len(table["v_donor"][0])
        self.inputs: dict[str, Sequence[Any]] = {name: view_inputs(manifest, table, name, reference) for name in ("v_s", "v_c", "v_swap")}
        self.files = dict(zip(manifest["id"], view_inputs(manifest, None, "v", reference), strict=True))

    def of(self, at: int, post: dict[str, Any]) -> list[Shot]:
        """Original with the mask's outline, context, core and the first swap of row `at` of the counterfactuals."""
        views: dict[str, Any] = {"image, core outlined": self.files[post["id"]], "context only": self.inputs["v_s"][at], "core only": self.inputs["v_c"][at]}
        views["swapped"] = self.inputs["v_swap"][at * self.swaps]
        found = []
        for name, view in views.items():
            picture = small(view.load(self.root))
            if view is self.files[post["id"]]:
                picture = outlined(picture, unpack_mask(post["mask"], post["mask_side"]))
            found.append(Shot(name, data_uri(picture), f"{name}, post {post['id']}"))
        return found


def small(image: Image.Image) -> Image.Image:
    """The picture with its longer side of SIDE pixels."""
    from PIL import Image

    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def outlined(image: Image.Image, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Image.Image:
    """The picture with the border of the mask (side, side) drawn on it."""
    from PIL import Image

    wide = np.array(Image.fromarray(mask.astype(np.uint8) * 255).resize(image.size, Image.Resampling.NEAREST)) > 0
    edge = np.zeros_like(wide)
    for axis in (0, 1):
        for step in (1, 2):
            edge |= wide & ~np.roll(wide, step, axis) | wide & ~np.roll(wide, -step, axis)
    pixels = np.array(image)
    pixels[edge] = OUTLINE
    return Image.fromarray(pixels)


def data_uri(image: Image.Image) -> str:
    """The picture as a JPEG that travels inside a page."""
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
