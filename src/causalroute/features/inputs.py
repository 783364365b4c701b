"""What may be encoded: a text, an image, or a pair of both; known by its content, opened when its turn comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from PIL import Image


class TextLike(Protocol):
    """A text to encode."""

    @property
    def text(self) -> str:
        """As it is, with MASK for removed tokens."""
        ...

    def content_key(self) -> str:
        """Digest of the content."""
        ...


class ImageLike(Protocol):
    """An image to encode."""

    def content_key(self) -> str:
        """Digest of the content; opens no image."""
        ...

    def load(self, root: Path) -> Image.Image:
        """The RGB image; paths are relative to `root`."""
        ...

    def neighbour(self) -> str:
        """Inputs with an equal one are loaded one after the other."""
        ...


class PairLike(Protocol):
    """A text and an image that are read together."""

    @property
    def pair(self) -> tuple[TextLike, ImageLike]:
        """Both sides."""
        ...

    def content_key(self) -> str:
        """Digest of the content; opens no image."""
        ...


Input = TextLike | ImageLike | PairLike


def sides(item: Any) -> tuple[Any, Any]:
    """(text, image) of an input, None for a side that it has not."""
    if hasattr(item, "pair"):
        return item.pair
    return (item, None) if hasattr(item, "text") else (None, item)
