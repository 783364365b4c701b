"""How inputs are encoded, whatever the backbone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from causalroute.features.backbone import Backbone
from causalroute.features.inputs import Input
from causalroute.features.store import Store
from causalroute.io import sha256_bytes


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How inputs are encoded: what `encode` needs beside them."""

    backbone: Backbone
    store: Store
    root: Path
    """data root: image paths are relative to it"""
    threads: int = 1
    """forward passes at a time"""
    tokens: bool = False
    """store token and patch features too"""

    def digest(self, item: Input) -> bytes:
        """Key of an input in the store."""
        kind = b"text" if hasattr(item, "text") else b"pair" if hasattr(item, "pair") else b"image"
        return bytes.fromhex(sha256_bytes(kind + (b"+tokens" if self.tokens else b""), item.content_key().encode()))
