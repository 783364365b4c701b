"""Rows of an untrained multimodal LLM: formulas against hand-made answers, what each setting changes, the file of answers to the table."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from tests import simulated
from torch import Tensor

from causalroute import io, layout, pairs
from causalroute.errors import UserError
from causalroute.methods.base import Method, Posts, Shape
from causalroute.rng import torch_generator
from causalroute.stages import evaluate, train
from causalroute.training.data import ALL_VIEWS, Files, load_posts
from causalroute.training.job import build

VIEWS = ("t", "v", "k", *ALL_VIEWS, *pairs.EDITED_PAIRS)
PROMPTS, SWAPS = 3, 2


def axes(name: str) -> int:
    """Swap axes of a view or pair."""
    return 2 if name == "k_swap_tv" else int("swap" in name)


def answers(count: int, classes: int, seed: int = 0) -> dict[str, Tensor]:
    """Log-likelihoods of every view, each its own."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {pairs.score_name(name): (count, *(SWAPS,) * axes(name), PROMPTS, classes) for name in VIEWS}
    return {name: -3 * torch.rand(shape, generator=generator) for name, shape in (shapes | {"z_0": (PROMPTS, classes)}).items()}


def built(name: str, posts: Posts, **settings: Any) -> Method:
    method = build(name, settings, Shape(4, 4, posts.classes, 8, 0.0), 0)
    method.prepare(posts, torch_generator(0))
    return method


@pytest.fixture(scope="module")
def posts() -> Posts:
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    views = {name: torch.zeros(6, *(SWAPS,) * axes(name), 4) for name in ("t", "v", *ALL_VIEWS)}
    ok = torch.ones(6, dtype=torch.bool)
    made = Posts([f"p{row}" for row in range(6)], ["train"] * 3 + ["valid"] * 3, ["x"] * 6, labels, 3, views, ok, ok)
    return dataclasses.replace(made, scores=answers(6, 3))


ROWS = torch.tensor([4, 0, 5])


def softmax(z: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in z)
    return [math.exp(value) / total for value in z]


def test_the_class_is_the_likeliest_answer(posts: Posts) -> None:
    p = built("zero_shot", posts, prompt=1).answer(posts.inputs(ROWS)).p
    for place, row in enumerate(ROWS.tolist()):
        assert p[place].tolist() == pytest.approx(softmax(posts.scores["z"][row, 1].tolist()), abs=1e-6)


def test_several_prompts_vote_by_their_log_probabilities(posts: Posts) -> None:
    p = built("zero_shot", posts, prompt=-1).answer(posts.inputs(ROWS)).p
    for place, row in enumerate(ROWS.tolist()):
        logs = [[math.log(value) for value in softmax(posts.scores["z"][row, prompt].tolist())] for prompt in range(PROMPTS)]
        assert p[place].tolist() == pytest.approx(softmax([sum(column) / PROMPTS for column in zip(*logs, strict=True)]), abs=1e-6)


def test_calibration_takes_away_what_is_said_of_nothing(posts: Posts) -> None:
    p = built("zero_shot", posts, calibrate=True).answer(posts.inputs(ROWS)).p
    nothing = posts.scores["z_0"][0].tolist()
    for place, row in enumerate(ROWS.tolist()):
        z = posts.scores["z"][row, 0].tolist()
        assert p[place].tolist() == pytest.approx(softmax([a - b for a, b in zip(z, nothing, strict=True)]), abs=1e-6)
    constant = dataclasses.replace(posts, scores={name: posts.scores["z_0"].expand_as(value) for name, value in posts.scores.items()})
    torch.testing.assert_close(built("zero_shot", constant, calibrate=True).answer(constant.inputs(ROWS)).p, torch.full((3, 3), 1 / 3))


@pytest.mark.parametrize(("sees", "views"), [("text", ("z_t", "z_t_swap")), ("image", ("z_v", "z_v_swap")), ("both", ("z", "z_swap_tv"))])
def test_each_view_is_answered_by_what_was_said_of_it(posts: Posts, sees: str, views: tuple[str, str]) -> None:
    method = built("zero_shot", posts, sees=sees)
    torch.testing.assert_close(method.scores(posts.inputs(ROWS)), posts.scores[views[0]][ROWS, 0])
    swapped = posts.scores[views[1]][ROWS, 1, 1] if sees == "both" else posts.scores[views[1]][ROWS, 1]
    torch.testing.assert_close(method.scores(posts.inputs(ROWS, "t_swap", "v_swap", swap=1)), swapped[:, 0])


def test_debiasing_takes_away_what_the_contexts_alone_say(posts: Posts) -> None:
    strong, none = (built("zero_shot_debiased", posts, strength=w) for w in (2.0, 0.0))
    z, context, nothing = (posts.scores[name][..., 0, :] for name in ("z", "z_s", "z_0"))
    wanted = (z[ROWS] - nothing) - 2 * (context[ROWS] - nothing)
    torch.testing.assert_close(strong.answer(posts.inputs(ROWS)).p, wanted.softmax(-1))
    torch.testing.assert_close(none.answer(posts.inputs(ROWS)).p, built("zero_shot", posts, calibrate=True).answer(posts.inputs(ROWS)).p)


def test_effects_are_log_odds_against_no_post(posts: Posts) -> None:
    answer = built("zero_shot", posts).answer(posts.inputs(ROWS))
    for name, view in (("te", "z"), ("nde_t", "z_t_s"), ("nde_v", "z_v_s"), ("nde_tv", "z_s")):
        wanted = posts.scores[view][ROWS, 0].log_softmax(-1) - posts.scores["z_0"][0].log_softmax(-1)
        torch.testing.assert_close(getattr(answer, name), wanted)


def test_it_is_told_where_nobody_was_asked(posts: Posts) -> None:
    silent = dataclasses.replace(posts, scores={})
    with pytest.raises(UserError, match="kind mllm"):
        built("zero_shot", silent)
    with pytest.raises(UserError, match="prompt 3"):
        built("zero_shot", posts, prompt=3)


def add_answers(path: Path, classes: list[str]) -> None:
    """Puts answers into a feature file of the simulated data."""
    tensors, metadata = io.read_tensors(path)
    count = len(tensors["rows"]) if "rows" in tensors else len(tensors["t"])
    made = {name: value for name, value in answers(count, len(classes)).items() if name != "z_0"}
    if "rows" not in tensors:
        made = {name: made[name] for name in ("z", "z_t", "z_v")} | {"z_0": torch.zeros(1, PROMPTS, len(classes))}
    io.write_tensors(path, tensors | made, metadata | {"answers": io.canonical_json(classes)})


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    simulated.write(train=60, valid=20, test=20)
    return tmp_path


def test_answers_are_brought_into_the_order_of_the_classes(checkout: Path) -> None:
    names = ("factual", "estimated", "truth")
    for name in names:
        add_answers(layout.features("sim", "b", name), ["sarcastic", "literal"])
    files, splits = Files.of("sim", "b", "estimated", "truth"), ["valid", "id"]
    posts, _ = load_posts(files, splits, simulated.CLASSES, roles={"train": "valid"}, views=ALL_VIEWS)
    stored, _ = io.read_tensors(layout.features("sim", "b", "factual"))
    first = pl.read_parquet(layout.manifest("sim"))["id"].to_list().index(posts.ids[0])
    torch.testing.assert_close(posts.scores["z"][0], stored["z"][first].flip(-1))
    assert posts.scores["z_0"].shape == (PROMPTS, 2)
    assert {"z_swap_tv", "z_held_swap_tv", "z_t_held_swap", "z_t_c"} <= set(posts.scores)
    with pytest.raises(UserError, match="answers of the model are of the classes"):
        load_posts(files, splits, ("literal", "ironic"), roles={"train": "valid"}, views=ALL_VIEWS)


@pytest.mark.parametrize("name", ["zero_shot", "zero_shot_debiased"])
def test_it_is_a_row_like_every_other(checkout: Path, name: str) -> None:
    for editor in ("factual", "estimated", "truth"):
        add_answers(layout.features("sim", "b", editor), list(simulated.CLASSES))
    config = simulated.config(train={"epochs": 1}, method={})
    job = ["--dataset", "sim", "--method", name, "--seeds", "0-1", "--config", config]
    assert train.main(job) == 0
    assert evaluate.main(job) == 0
    found = pl.read_parquet(layout.run("sim", name, 0, 1) / "predictions.parquet")
    assert set(found["view"]) == {"factual", "swap_t", "swap_v", "swap_tv", "held_t", "held_v", "held_tv", "context", "core"}
    assert found.filter(pl.col("seed") == 0).drop("seed").equals(found.filter(pl.col("seed") == 1).drop("seed"))
