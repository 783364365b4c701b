"""A generated benchmark with known causal truth: sentences, faces, and two shortcuts (docs/planted.md)."""

from causalroute.data.planted.benchmark import CLASSES, SPLITS, generate

__all__ = ["CLASSES", "SPLITS", "generate"]
