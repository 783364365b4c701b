"""Sources of posts: told apart by their style, and in each of them the same cue plays its own part.

    shortcut    the cue agrees with the recorded label with probability rho and has nothing to do with its meaning
    free        the cue is drawn independently of the label
    core        the cue belongs to the meaning: class 0 leaves the polarity of its side as it is, class 1 turns it round, so that the label
                depends on it through the mediator alone; it agrees with the label with probability `core_bias`

A post of a source is written and framed in its style: a handle in the text, a frame around the image. What a cue means can be known from
the style and from nothing else; no editor is told.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from causalroute.config import Planted

Role = Literal["shortcut", "free", "core"]
ROLES: dict[str, tuple[Role, Role]] = {
    "both": ("shortcut", "shortcut"),
    "none": ("free", "free"),
    "core_text": ("core", "shortcut"),
    "core_image": ("shortcut", "core"),
}
"""Parts of the hashtags and of the background by kind of source."""
HANDLES: tuple[str, ...] = ("@newsdesk", "@snapclub", "@chatroom", "@playback")
"""Handle by style; it stands in front of a post or behind it."""
HANDLE_FIRST = 0.5
"""Share of posts whose handle stands in front."""


class Cue(NamedTuple):
    """How the cue of one side is drawn."""

    role: Role
    agreement: float
    """probability that it equals the recorded label"""


def cues(settings: Planted, kind: str, split: str, classes: int) -> tuple[Cue, Cue]:
    """The cues of text and image in a source of the kind."""
    rho = {"shortcut": (settings.rho_text, settings.rho_image), "free": (1.0 / classes,) * 2, "core": (settings.core_bias,) * 2}
    text, image = ROLES[kind]
    return Cue(text, agreement(split, rho[text][0], classes)), Cue(image, agreement(split, rho[image][1], classes))


def agreement(split: str, rho: float, classes: int) -> float:
    """Probability r that a cue equals the recorded label: what holds in train, valid and id is reversed in ood and absent in neutral and oracle."""
    if split in ("train", "valid", "id"):
        return rho
    return 1.0 - rho if split == "ood" else 1.0 / classes


def turned(cue: Cue, value: int) -> int:
    """What the value of a cue makes of the polarity of its side: +1 or -1."""
    return -1 if cue.role == "core" and value == 1 else 1


def style(rng: np.random.Generator, settings: Planted, source: int) -> int:
    """Style of a post of the source with this number; hidden styles are drawn independently of it."""
    return source if settings.style == "shown" else int(rng.integers(len(settings.sources)))
