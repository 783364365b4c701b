"""Swaps on both sides without any gate: cross-entropy on x, x_T, x_V and x_TV; the strongest plain control."""

from __future__ import annotations

from causalroute.methods.swapping import Settings, SwapMethod

__all__ = ["EDITOR", "Method", "Settings"]

EDITOR = "dataset"


class Method(SwapMethod):
    """See the module."""

    sides = ("text", "image")
