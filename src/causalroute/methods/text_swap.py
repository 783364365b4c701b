"""One-sided swap: cross-entropy on the post and on the post with the text context of an item of another class ("unimodal debiasing" of the text)."""

from __future__ import annotations

from causalroute.methods.swapping import Settings, SwapMethod

__all__ = ["EDITOR", "SEARCH", "Method", "Settings"]

EDITOR = "dataset"
SEARCH = {"ramp_end": (0.2, 0.4, 0.8)}


class Method(SwapMethod):
    """See the module."""

    sides = ("text",)
