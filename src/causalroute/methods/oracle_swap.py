"""Double swap with the generator's own spans and boxes: the plain control with perfect counterfactuals (labelled oracle, planted and injected data only)."""

from __future__ import annotations

from causalroute.methods.swapping import Settings, SwapMethod

__all__ = ["EDITOR", "Method", "Settings"]

EDITOR = "truth"


class Method(SwapMethod):
    """See the module."""

    sides = ("text", "image")
