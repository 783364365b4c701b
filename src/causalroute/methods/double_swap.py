"""Swaps on both sides without any gate: cross-entropy on x, x_T, x_V and x_TV; the strongest plain control."""

from __future__ import annotations

from causalroute.methods.swapping import Settings, SwapMethod

__all__ = ["EDITOR", "SEARCH", "Method", "Settings"]

EDITOR = "dataset"
SEARCH = {"ramp_end": (0.2, 0.4, 0.8)}


class Method(SwapMethod):
    """See the module."""

    sides = ("text", "image")
