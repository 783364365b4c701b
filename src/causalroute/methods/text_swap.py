"""One-sided swap: cross-entropy on the post and on the post with the text context of an item of another class ("unimodal debiasing" of the text)."""

from __future__ import annotations

from causalroute.methods.swapping import Settings, SwapMethod

__all__ = ["EDITOR", "Method", "Settings"]

EDITOR = "dataset"


class Method(SwapMethod):
    """See the module."""

    sides = ("text",)
