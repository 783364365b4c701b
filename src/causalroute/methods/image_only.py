"""ERM on the visual side alone: one hidden layer, the other side is never seen."""

from __future__ import annotations

from causalroute.methods import text_only
from causalroute.methods.text_only import Settings

__all__ = ["EDITOR", "Method", "Settings"]

EDITOR = None


class Method(text_only.Method):
    """See the module."""

    side = "image"
