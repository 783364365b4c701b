"""CLUE on the image (Sun et al. 2022), the mirror of the published one: the direct effect of the image alone is subtracted; formulas in clue.py."""

from __future__ import annotations

from causalroute.methods.clue import Clue, Settings

__all__ = ["EDITOR", "SEARCH", "Method", "Settings"]

EDITOR = None
SEARCH = {"fusion": ("sum", "hm", "rubi")}


class Method(Clue):
    """See the module."""

    side = "image"
