"""What a text editor found: the one thing that every text module's result is turned into."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Marks = list[NDArray[np.bool_]]
"""M arrays, one value per token: True = context."""
Side = Literal["text", "attributes"]
"""What the edited words are: sentences, or the attribute words that a data set publishes instead of images."""


@dataclasses.dataclass(frozen=True)
class Found:
    """Marks of M posts, and what some editors have besides."""

    marks: Marks
    """True for each context token"""
    flips: list[str | None] | None = None
    """rewritten texts with the other label, checked; None for an editor that writes none"""
    failures: dict[int, str] = dataclasses.field(default_factory=dict)
    """row -> why the editor has nothing for this post; such a post is neither swapped nor does it lend"""
    lost_flips: dict[int, str] = dataclasses.field(default_factory=dict)
    """row -> why a flip that the editor wrote is not kept"""
