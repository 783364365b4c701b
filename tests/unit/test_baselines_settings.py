"""Every setting of the baselines changes something, and every declared search is one that can be run."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from typing import Any

import pytest
import torch
from tests.unit.short_training import posts, small, trained

from causalroute import methods
from causalroute.errors import UserError
from causalroute.methods.base import Posts
from causalroute.provenance import constants
from causalroute.rng import torch_generator

__all__ = ["posts"]
CHANGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("label_smoothing", {}, {"smoothing": 0.3}), ("lff", {}, {"q": 0.2}), ("lff", {}, {"momentum": 0.1}), ("poe", {}, {"bias": "text"}),
    ("poe", {}, {"bias": "image"}), ("lmh", {}, {"bias": "image"}), ("lmh", {}, {"penalty": 1.0}), ("rubi", {}, {"bias": "text"}),
    ("clue_text", {}, {"fusion": "hm"}), ("clue_image", {}, {"fusion": "rubi"}), ("clue_text", {}, {"alphas": [2.0]}), ("gear", {}, {"q": 0.2}),
    ("gear", {}, {"pool": "min"}), ("jtt", {}, {"up": 30.0}), ("jtt", {}, {"steps": 5}), ("dfr", {}, {"c": 1.0}), ("dfr", {}, {"folds": 5}),
    ("dfr", {}, {"probe_hidden": 1}), ("irm", {}, {"penalty": 1.0}), ("irm", {}, {"ramp_start": 0.39}), ("irm", {}, {"ramp_end": 0.9}),
    ("irm", {}, {"folds": 2}), ("irm", {}, {"probe_hidden": 4}), ("moe", {}, {"experts": 6}), ("moe", {}, {"rank": 2}), ("moe", {}, {"top_k": 1}),
    ("moe", {}, {"balance": 1.0}), ("moe", {}, {"z": 1.0}), ("subtraction", {}, {"grid": [1.0]}), ("supcon", {}, {"ce": 0.6}),
    ("supcon", {}, {"temperature": 0.5}), ("cf_vqa", {}, {"fusion": "hm"}), ("cf_vqa", {}, {"fusion": "rubi"}),
    ("cf_vqa", {"fusion": "rubi"}, {"subtract": "both"}), ("group_dro", {}, {"eta": 1.0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "common", "change"), CHANGES, ids=[f"{name} {json.dumps(common | change)}" for name, common, change in CHANGES])
def test_every_setting_changes_the_answer(name: str, common: dict[str, Any], change: dict[str, Any], posts: dict[str, Posts]) -> None:
    data = small(posts["biased"])
    assert not torch.equal(answer_of(name, json.dumps(common), data), answer_of(name, json.dumps(common | change), data))


def answer_of(name: str, settings: str, data: Posts, known: dict[tuple[str, str], torch.Tensor] = {}) -> torch.Tensor:  # noqa: B006 - a cache
    if (name, settings) not in known:
        method, _ = trained(name, data, json.loads(settings), epochs=2)
        with torch.no_grad():
            known[name, settings] = method.answer(data.inputs(data.valid)).p
    return known[name, settings]


@pytest.mark.parametrize("name", methods.names())
def test_a_search_names_settings_with_their_default_and_stays_small(name: str) -> None:
    search = constants(f"causalroute.methods.{name}").get("SEARCH")
    assert search == getattr(methods.load(name), "SEARCH", None)
    if search is None:
        return
    assert isinstance(search, dict)
    assert 2 <= math.prod(len(values) for values in search.values()) <= 4
    default = dataclasses.asdict(methods.settings_of(name, {}))
    for key, values in search.items():
        assert default[key] in values
        assert len(set(values)) == len(values)
    for values in itertools.product(*search.values()):
        methods.settings_of(name, dict(zip(search, values, strict=True)))


def test_more_experts_chosen_than_there_are_is_told() -> None:
    with pytest.raises(UserError, match="must lie between 1 and the 2 experts"):
        methods.settings_of("moe", {"experts": 2, "top_k": 3})


def test_one_expert_per_post_still_teaches_the_router(posts) -> None:
    data = small(posts["biased"])
    method, _ = trained("moe", data, {"top_k": 1, "balance": 0.0, "z": 0.0}, epochs=1)
    method.zero_grad()
    method.loss(data, data.train[:64], 0.5, torch_generator(0))["loss"].backward()
    assert method.router.weight.grad.abs().sum() > 0


def test_a_group_that_lost_its_weight_can_be_met_alone(posts) -> None:
    data = small(posts["biased"])
    method, _ = trained("group_dro", data, {"eta": 1.0}, epochs=1)
    method.weights.copy_(torch.nn.functional.one_hot(torch.tensor(0), len(method.weights)).float())
    for _ in range(2):
        losses = method.loss(data, data.train[method.groups[data.train] == 7][:1], 0.5, torch_generator(0))
    assert losses["loss"].isfinite()
