"""Simulated posts and a short training, for the tests of the methods."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tests import simulated

from causalroute import methods
from causalroute.config import Train
from causalroute.methods.base import Posts, Shape
from causalroute.training import loop
from causalroute.training.data import TRAIN_VIEWS, Files, load_posts
from causalroute.training.job import build, shape_of


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Posts]:
    """Data for the methods, by the split trained on; all views."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("sim"))
        simulated.write(train=800, valid=200, test=300)
        roles = {"train": "train", "valid": "valid"}
        splits = ["train", "valid"]
        found, _ = load_posts(Files.of("sim", "b", "estimated"), splits, simulated.CLASSES, roles=roles, views=TRAIN_VIEWS)
        oracle = {"train": "oracle_train", "valid": "oracle_valid"}
        return {"biased": found, "oracle": load_posts(Files.of("sim", "b", None), list(oracle.values()), simulated.CLASSES, roles=oracle)[0]}


def shape(posts: Posts) -> Shape:
    return shape_of(posts, Train(hidden=32, dropout=0.1))


def trained(name: str, posts: Posts, settings: dict[str, Any] | None = None, epochs: int = 4, seed: int = 0) -> tuple[methods.base.Method, list[dict]]:
    method = build(name, settings or {}, shape(posts), seed)
    train = Train(epochs=epochs, lr=0.01, hidden=32)
    state = loop.start(method, posts, name, seed, train)
    loop.advance(state, posts, train, seed, save=lambda s: None, watch=lambda row: None)
    return method, state.history


def small(posts: Posts) -> Posts:
    """Fewer items, to be quick."""
    keep = torch.cat([posts.train[:256], posts.valid[:100]])
    listed = {name: [getattr(posts, name)[row] for row in keep.tolist()] for name in ("ids", "splits", "texts")}
    tensors = {name: getattr(posts, name)[keep] for name in ("labels", "text_ok", "image_ok")}
    return dataclasses.replace(posts, **listed, **tensors, views={name: value[keep] for name, value in posts.views.items()})
