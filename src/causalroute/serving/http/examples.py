"""Posts to try: those that a saved model brings along (`examples` of its config.json), and a few made-up ones whose pictures are drawn here."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from causalroute.data.images import open_image
from causalroute.data.planted import render
from causalroute.errors import UserError
from causalroute.rng import generator

MOST = 12
"""Examples of a saved model that are offered."""
WARM, COOL, GREEN = range(3)
HAPPY, SAD = +1, -1
MADE: tuple[tuple[str, str, int, int], ...] = (
    ("Kind words, sad face, #monday", "another lovely meeting from my boss #monday #citylife", SAD, WARM),
    ("Kind words, happy face, #photo", "the new bicycle at the station was really wonderful #photo #garden", HAPPY, COOL),
    ("Grim words, happy face", "#commute #paper my umbrella is truly awful again", HAPPY, COOL),
    ("Grim words, sad face, #radio", "the wooden elevator at work turned out quite dreadful #window #radio", SAD, GREEN),
)
"""Title, text, polarity of the face, background family; in the manner of the planted benchmark, of no split of it."""
BARE = ("Text alone", "guess what , the wifi at the airport is simply fantastic")


@dataclass(frozen=True)
class Example:
    """A post to try."""

    title: str
    text: str
    image: bytes | None = None
    """PNG"""
    alt: str = ""
    attributes: str | None = None


def gather(config: Mapping[str, Any], folder: Path | None) -> list[Example]:
    """The examples of a saved model, then the made-up ones.

    Args:
        config: config.json; `examples` is a list of {"title", "text", "image": path inside `folder`, "alt", "attributes"}, all but the text optional.
        folder: of the saved model; None: it has none, and no pictures.

    Raises:
        UserError: an example is unusable.
    """
    visual = config.get("visual", "image")
    own = [_own(told, number, folder) for number, told in enumerate(config.get("examples") or (), 1)][:MOST]
    return [*own, *(_made(number, visual) for number in range(len(MADE))), Example(*BARE)]


def _own(told: Any, number: int, folder: Path | None) -> Example:
    if not isinstance(told, dict) or not isinstance(told.get("text", ""), str):
        raise UserError("an example is no object with a text", where=f"config.json: examples, number {number}", fix='write {"text": "..."}')
    picture = told.get("image")
    image = _png(open_image(folder, picture)) if picture and folder is not None else None
    return Example(told.get("title") or f"Example {number}", told.get("text", ""), image, told.get("alt") or "picture of the example", told.get("attributes"))


def _made(number: int, visual: str) -> Example:
    title, text, polarity, family = MADE[number]
    words = f"{'smiling' if polarity > 0 else 'frowning'} face on {render.FAMILY_NAMES[family]} stripes"
    if visual != "image":
        return Example(title, text, attributes=words if visual == "attributes" else None)
    scene = render.draw_scene(generator(0, "examples", number), polarity, family, render.CLEAN)
    return Example(title, text, _png(render.render(scene)), f"a {words}")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
