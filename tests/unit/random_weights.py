"""Weights files of untrained methods whose every tensor is random, so that no part of a method is idle: for the tests of exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from causalroute import io
from causalroute.evaluation.predict import Weights
from causalroute.methods.base import Shape
from causalroute.training.job import build

CLASSES = ["no", "perhaps", "yes"]


def write(path: Path, method: str, settings: dict[str, Any] | None = None, seeds: tuple[int, ...] = (0,), **sizes: int) -> Weights:
    """One file; `sizes` are text_dim, image_dim and joint_dim."""
    widths = {"text_dim": 5, "image_dim": 4, "joint_dim": 0, **sizes}
    shape = Shape(widths["text_dim"], widths["image_dim"], len(CLASSES), 6, 0.0, widths["joint_dim"])
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    for name, side in (("t", "text"), ("v", "image"), ("k", "joint")):
        width = widths[f"{side}_dim"]
        if width or side != "joint":
            tensors[f"standard/{name}_mean"] = torch.randn(width, generator=generator)
            tensors[f"standard/{name}_std"] = torch.rand(width, generator=generator) + 0.5
    extra = {}
    for seed in seeds:
        built = build(method, settings or {}, shape, seed)
        for name, value in built.kept().items():
            fixed = not value.is_floating_point() or name.endswith(("std", "log_prior", "scale", "asked"))
            tensors[f"seed{seed}/{name}"] = value.clone() if fixed else 0.7 * torch.randn(value.shape, generator=generator)
            if name.endswith("asked"):
                tensors[f"seed{seed}/{name}"].fill_(1.0)
        extra[str(seed)] = built.extra()
    metadata = {"method": method, "settings": io.canonical_json(settings or {}), "shape": io.canonical_json(shape.saved())}
    io.write_tensors(path, tensors, metadata | {"seeds": io.canonical_json(list(seeds)), "extra": io.canonical_json(extra)})
    return Weights(path)
