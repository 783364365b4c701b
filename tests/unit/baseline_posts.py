"""A handful of posts in double precision and arithmetic by hand, for the tests of the baselines."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from causalroute import methods
from causalroute.methods.base import Method, Posts, Shape
from causalroute.rng import torch_generator

TEXT, IMAGE, HIDDEN = 5, 4, 6


def tiny(items: int = 14, classes: int = 3, seed: int = 0) -> Posts:
    """Random posts: the first ten train, the rest valid; two swaps a side."""
    g = torch_generator(seed, "tiny")

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    views = {"t": normal(items, TEXT), "v": normal(items, IMAGE), "t_s": normal(items, TEXT), "v_s": normal(items, IMAGE)}
    views |= {"t_swap": normal(items, 2, TEXT), "v_swap": normal(items, 2, IMAGE)}
    labels = torch.arange(items) % classes
    splits = ["train"] * 10 + ["valid"] * (items - 10)
    ok = [torch.rand(items, generator=g) < 0.7 for _ in range(2)]
    return Posts([f"p{i}" for i in range(items)], splits, [""] * items, labels, classes, views, *ok)


def built(name: str, posts: Posts, prepare: bool = False, **settings: Any) -> Method:
    """An untrained method in double precision, without dropout."""
    module = methods.load(name)
    shape = Shape(TEXT, IMAGE, posts.classes, HIDDEN, 0.0)
    method: Method = module.Method(methods.settings_of(name, settings), shape, torch_generator(1, name))
    if prepare:
        method.prepare(single(posts), torch_generator(2, name))
    return method.double()


def single(posts: Posts) -> Posts:
    """The same posts in single precision, in which whatever comes before the gradient steps works."""
    return dataclasses.replace(posts, views={name: value.float() for name, value in posts.views.items()})


def softmax(z: list[float]) -> list[float]:
    """By hand."""
    total = sum(math.exp(x) for x in z)
    return [math.exp(x) / total for x in z]


def ce(z: list[float], y: int) -> float:
    """Cross-entropy of one item."""
    return -math.log(softmax(z)[y])


def sigmoid(x: float) -> float:
    """By hand."""
    return 1 / (1 + math.exp(-x))


def mean(values: Any) -> float:
    """Of any iterable."""
    values = list(values)
    return sum(values) / len(values)
