"""What is put to a trained model, and what it answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Post:
    """One post; at least one of its sides says something."""

    text: str = ""
    """as it was written"""
    image: Path | Image.Image | None = None
    """file or picture; None: the post has no image"""
    attributes: str | None = None
    """attribute words, for a model whose visual side is words"""


@dataclass(frozen=True)
class Word:
    """One token of a text."""

    text: str
    """as it stands there"""
    start: int
    """offset in characters; `end` likewise, one behind the last"""
    end: int
    context: bool
    """the editor takes it for context, which may be spurious; else it is core"""


@dataclass(frozen=True)
class Region:
    """The core mask of an image, squeezed to a square."""

    side: int
    """cells per axis"""
    core: tuple[tuple[bool, ...], ...]
    """(side, side), rows from the top, True = core"""


@dataclass(frozen=True)
class Explanation:
    """Why a model answers as it does."""

    effects: dict[str, dict[str, float]]
    """TE, NDE_text, NDE_image, NDE_both, TIE, as far as the method has them -> class -> log-odds against the class prior (`causalroute.model.effects`)"""
    gates: dict[str, float]
    """keep, text, image, both -> share; empty where the method has no gate"""
    experts: tuple[tuple[str, float], ...]
    """experts by kind and number, and their weights; empty where it has none"""
    words: tuple[Word, ...]
    """the text in tokens"""
    region: Region | None
    """None where there is no image, or the editor finds none"""


@dataclass(frozen=True)
class Prediction:
    """The answer to one post."""

    label: str
    """the likeliest class"""
    probabilities: dict[str, float]
    """class -> probability: mean over training seeds, each after its temperature"""
    spread: float
    """standard deviation over training seeds of the probability of `label`"""
    biased_label: str | None
    """the same of the biased reference, where the model carries one"""
    biased: dict[str, float] | None
    explanation: Explanation | None
    """where one was asked for"""
    warnings: tuple[str, ...]
    """what the reader should know of this post"""

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)
