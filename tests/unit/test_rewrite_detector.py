"""The cheat that knows the rewriter: what it gains on rewrites, and what it says where there are none."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import polars as pl
import pytest
import torch

from causalroute import io, layout, methods
from causalroute.config import Backbone
from causalroute.errors import UserError
from causalroute.methods.base import Method, Origin, Posts, Shape
from causalroute.plan import reads
from causalroute.training.job import build

WORDS = ["market", "coffee", "river", "train", "bread", "window", "ticket", "holiday"]
TRAIN, VALID, TEST = 200, 60, 60


def written(label: int, rewritten: bool, draw: random.Random) -> str:
    """A caption whose word tells the label; a rewrite keeps the word, has the other label, and shows its hand."""
    told = ("awful", "lovely")[1 - label if rewritten else label]
    return " ".join([*(["indeed ,"] if rewritten else []), *draw.sample(WORDS, 4), told if draw.random() < 0.9 else "odd"])


@pytest.fixture
def posts() -> Posts:
    draw, labels = random.Random(0), [row % 2 for row in range(TRAIN + VALID + TEST)]
    splits = ["train"] * TRAIN + ["valid"] * VALID + ["ood"] * TEST
    texts = [written(label, split == "ood", draw) for label, split in zip(labels, splits, strict=True)]
    ids = [f"p{row}" for row in range(len(labels))]
    rewrites = {ids[row]: [written(1 - labels[row], True, draw)] for row in range(TRAIN)}
    none = torch.zeros(len(ids), dtype=torch.bool)
    views = {name: torch.zeros(len(ids), 1) for name in "tv"}
    return Posts(ids, splits, texts, torch.tensor(labels), 2, views, none, none, reader=rewrites)


def fitted(name: str, posts: Posts) -> Method:
    method = build(name, {}, Shape(1, 1, 2, 8, 0.0), 0, posts.reader)
    method.prepare(posts, torch.Generator())
    return method


def accuracy(method: Method, posts: Posts, split: str) -> float:
    rows = posts.rows(split)
    return (method.answer(posts.inputs(rows)).p.argmax(1) == posts.labels[rows]).float().mean().item()


def test_it_turns_round_where_a_caption_is_a_rewrite_and_nowhere_else(posts: Posts) -> None:
    plain, cheat = fitted("bag_of_words", posts), fitted("rewrite_detector", posts)
    assert accuracy(plain, posts, "ood") < 0.2
    assert accuracy(cheat, posts, "ood") > 0.8
    assert accuracy(cheat, posts, "valid") == accuracy(plain, posts, "valid")
    rows = posts.rows("ood")
    p, told = plain.answer(posts.inputs(rows)).p, cheat.detector.answer(posts.inputs(rows)).p[:, 1:]
    torch.testing.assert_close(cheat.answer(posts.inputs(rows)).p, (1 - told) * p + told * p.flip(1))


def test_it_is_restored_as_it_was(posts: Posts) -> None:
    first, second = fitted("rewrite_detector", posts), build("rewrite_detector", {}, Shape(1, 1, 2, 8, 0.0), 0)
    second.restore(first.kept(), first.extra())
    inputs = posts.inputs(posts.rows("ood"))
    assert torch.equal(first.answer(inputs).p, second.answer(inputs).p)


def test_without_rewrites_or_with_three_classes_it_is_refused(posts: Posts) -> None:
    with pytest.raises(UserError, match=r"too few published rewrites(.|\n)*leave rewrite_detector out"):
        fitted("rewrite_detector", dataclasses.replace(posts, reader={"p0": ["one"]}))
    with pytest.raises(UserError, match="too few published rewrites"):
        fitted("rewrite_detector", dataclasses.replace(posts, reader=None))
    with pytest.raises(UserError, match="between two classes"):
        fitted("rewrite_detector", dataclasses.replace(posts, classes=3))


def test_it_reads_the_rewrites_of_its_posts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, posts: Posts) -> None:
    monkeypatch.chdir(tmp_path)
    rows = {"id": ["p1", "elsewhere", "p1"], "text": ["a", "b", "c"], "label": [0, 1, 0]}
    io.write_parquet(layout.rewrites("mine"), pl.DataFrame(rows))
    origin = Origin("mine", "", "", "b", Backbone(kind="dual_encoder", model="m"))
    assert methods.with_reader("rewrite_detector", posts, origin).reader == {"p1": ["a", "c"]}
    assert methods.further_files("rewrite_detector", origin) == [layout.rewrites("mine")]
    assert reads("rewrite_detector") == methods.reads("rewrite_detector") == "rewrites"
