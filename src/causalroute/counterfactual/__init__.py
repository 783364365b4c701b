"""Counterfactual texts and images, estimated from the train split: what of a post is core, what is context, and posts with the context changed."""

from __future__ import annotations

from causalroute.counterfactual.views import MASK

__all__ = ["MASK"]
