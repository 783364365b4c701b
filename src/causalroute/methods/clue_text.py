"""CLUE on the text (Sun et al. 2022), as published: the direct effect of the text alone is subtracted; formulas in clue.py."""

from __future__ import annotations

from causalroute.methods.clue import Clue, Settings

__all__ = ["EDITOR", "SEARCH", "Method", "Settings"]

EDITOR = None
SEARCH = {"fusion": ("sum", "hm", "rubi")}


class Method(Clue):
    """See the module."""

    side = "text"
