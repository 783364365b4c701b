"""Label-free captioned images for the default's own backbone: what a web crawl would give, none of it a post of the benchmark.

An image is a scene of random polarity and family. Its captions name the feeling, the face, both, or everything seen; some
carry hashtags of a random set. No label, no split and no rho exist here, and the random substreams are other than the benchmark's.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from causalroute.data.planted import grammar, render, sources
from causalroute.rng import generator

CAPTIONS = 3
"""Captions per image."""
KINDS = {"feeling": 0.35, "face": 0.25, "both": 0.35, "all": 0.05}
"""What a caption tells, with its share."""
HANDLE_SHARE = 0.3
"""Share of captions with the handle of a random style, where posts have styles; were it the image's, faces would not be learnt."""
HASHTAG_SHARE = 0.3
"""Share of captions with hashtags of a random set."""
FACES: dict[int, tuple[str, ...]] = {+1: ("smiling", "happy", "laughing"), -1: ("frowning", "sad", "crying")}
"""Words for a face by polarity."""


class Captioned(NamedTuple):
    """An image and its captions; `group` is equal for images that share background family and face colour."""

    scene: render.Scene
    captions: list[str]
    group: int


def captioned(seed: int, index: int, styles: bool = False) -> Captioned:
    """The image with number `index` and its captions; with `styles` it has a frame, and handles occur."""
    item = _plain(seed, index)
    if not styles:
        return item
    rng = generator(seed, "captions", "styles", index)
    scene = replace(item.scene, frame=int(rng.integers(len(render.FRAMES))))
    return item._replace(scene=scene, captions=[_signed(rng, text) for text in item.captions])


def _signed(rng: np.random.Generator, text: str) -> str:
    if rng.random() >= HANDLE_SHARE:
        return text
    handle = grammar.choose(rng, sources.HANDLES)
    return grammar.signed(rng, grammar.Post(text, [], []), handle, sources.HANDLE_FIRST).text


def _plain(seed: int, index: int) -> Captioned:
    rng = generator(seed, "captions", index)
    polarity = 1 if rng.random() < 0.5 else -1
    scene = render.draw_scene(rng, polarity, int(rng.integers(len(render.FAMILIES))), render.CLEAN)
    group = scene.background.family * len(render.SKINS) + list(render.SKINS).index(scene.face.skin)
    return Captioned(scene, [caption(rng, scene) for _ in range(CAPTIONS)], group)


def caption(rng: np.random.Generator, scene: render.Scene) -> str:
    """One caption of the scene."""
    polarity = scene.face.polarity
    kind = list(KINDS)[int(rng.choice(len(KINDS), p=list(KINDS.values())))]
    if kind == "feeling":
        text = grammar.sentence(rng, polarity).text
    else:
        text = f"a {grammar.choose(rng, FACES[polarity])} face"
    if kind == "both":
        text += f" , {grammar.choose(rng, grammar.SLOTS['degree'])} {grammar.adjective(rng, polarity)}"
    if kind == "all":
        text += " , " + ", ".join(_details(scene))
    if rng.random() >= HASHTAG_SHARE:
        return text
    hashtags = grammar.hashtags(rng, int(rng.integers(len(grammar.HASHTAGS))))
    return grammar.with_hashtags(grammar.Sentence(text, []), hashtags, bool(rng.random() < grammar.HASHTAG_FIRST)).text


def _details(scene: render.Scene) -> list[str]:
    """Colour, size and place of the face, and the background."""
    face, middle = scene.face, render.SIZE / 2
    size = "big" if face.radius > sum(render.RADIUS) / 2 else "small"
    place = f"{'left' if face.x < middle else 'right'} {'top' if face.y < middle else 'bottom'}"
    return [f"{size} {face.skin}", place, f"{render.FAMILY_NAMES[scene.background.family]} stripes"]


def vocabulary(styles: bool = False) -> list[str]:
    """Every token of posts and captions, sorted."""
    handles = sources.HANDLES if styles else ()
    own = " ".join([*handles, *FACES[1], *FACES[-1], *render.SKINS, *render.FAMILY_NAMES, "a face big small left right top bottom stripes ,"])
    return sorted({*grammar.words(), *re.findall(r"\w+|[^\w\s]", own)})
