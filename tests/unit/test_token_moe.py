"""The causal mixture on tokens: what it learns, what each of its settings changes, and the stages around it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from tests import simulated

from causalroute import io, layout, methods
from causalroute.config import Train
from causalroute.errors import UserError
from causalroute.io import ids_digest
from causalroute.methods.base import Method, Posts
from causalroute.stages import evaluate, train
from causalroute.stored.tokens import TokenReader
from causalroute.training import job, loop
from causalroute.training.checkpoint import Folder
from causalroute.training.data import TRAIN_VIEWS, Files, load_posts
from causalroute.training.job import build, shape_of

BASE = {"temperature": 0.5, "context_steps": 20, "router": "rule", "reweight": False}
BUDGET = {"epochs": 2, "batch_size": 64, "lr": 0.01, "hidden": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tokens")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        simulated.write(train=300, valid=100, test=100)
        simulated.write_tokens()
    return root


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture
def posts() -> Posts:
    roles = {"train": "train", "valid": "valid"}
    found, _ = load_posts(Files.of("sim", "b", "estimated"), ["train", "valid"], simulated.CLASSES, roles=roles, views=TRAIN_VIEWS)
    return dataclasses.replace(found, reader=TokenReader(found.ids, "sim", "b", "estimated"))


def trained(posts: Posts, settings: dict[str, Any] | None = None, epochs: int = 2, seed: int = 0) -> Method:
    budget = Train(epochs=epochs, lr=0.01, hidden=16)
    method = build("token_moe", BASE | (settings or {}), shape_of(posts, budget), seed, posts.reader)
    loop.advance(loop.start(method, posts, "token_moe", seed, budget), posts, budget, seed, save=lambda s: None, watch=lambda row: None)
    return method


@torch.no_grad()
def answer(method: Method, posts: Posts, *views: str) -> torch.Tensor:
    return method.answer(posts.inputs(posts.valid, *views)).p


@pytest.mark.parametrize("change", [{"masked": False}, {"per_kind": 2}, {"top_k": 1}, {"top_k": 0}, {"rank": 0}, {"own": 0.0}])
def test_settings_change_the_answer(change: dict[str, Any], posts: Posts) -> None:
    assert not torch.equal(answer(trained(posts, change), posts), answer(trained(posts), posts))


def test_tokens_are_looked_at_and_their_padding_is_not(posts: Posts) -> None:
    method = trained(posts, {"per_kind": 2})
    before = method.answer(posts.inputs(posts.valid))
    torch.testing.assert_close(before.experts.sum(1), torch.ones(len(posts.valid)))
    reader = posts.reader

    class Changed:
        widths = reader.widths

        def __init__(self, where: str) -> None:
            self.where = where

        def read(self, *wanted: Any) -> tuple[torch.Tensor, torch.Tensor]:
            tokens, inside = reader.read(*wanted)
            return tokens + (3.0 * (inside if self.where == "inside" else ~inside)[..., None]), inside

    for where, same in (("behind", True), ("inside", False)):
        other = dataclasses.replace(posts, reader=Changed(where))
        assert torch.equal(method.answer(other.inputs(posts.valid)).p, before.p) == same


def test_the_reader_gives_the_rows_and_swaps_that_are_asked_for(posts: Posts) -> None:
    tensors, _ = io.read_tensors(layout.tokens("sim", "b", "estimated"))
    place = {int(row): number for number, row in enumerate(tensors["rows"])}
    rows, swaps = torch.tensor([5, 2, 7]), torch.tensor([1, 0, 1])
    tokens, inside = posts.reader.read("t_swap", rows, swaps)
    numbers = [place[int(posts.ids[row][1:])] for row in rows.tolist()]
    stored = {view: tensors[view].float().split(tensors[f"{view}_lengths"].flatten().tolist()) for view in ("t_swap", "v_swap")}
    for got, there, number, swap in zip(tokens, inside, numbers, swaps.tolist(), strict=True):
        assert torch.equal(got[there], stored["t_swap"][2 * number + swap])
        assert not got[~there].any()
    assert torch.equal(posts.reader.read("v_swap", rows, 1)[0], torch.stack([stored["v_swap"][2 * number + 1] for number in numbers]))


@pytest.mark.slow
def test_swapped_contexts_lose_their_hold(posts: Posts) -> None:
    settings = {"bare": {"swaps": False, "router": "always"}, "routed": {"temperature": 0.0, "context_steps": 200}}
    kept = {}
    for name, changed in settings.items():
        right = answer(trained(posts, changed, epochs=12), posts, "t_swap", "v_swap").argmax(1) == posts.labels[posts.valid]
        kept[name] = right.float().mean().item()
    assert kept["routed"] > kept["bare"] + 0.2


@pytest.mark.slow
def test_a_killed_training_continues_to_the_same_bytes(posts: Posts, tmp_path: Path) -> None:
    def run(where: Path, stop: int | None) -> loop.State:
        budget, store = Train(epochs=3, lr=0.01, hidden=16), Folder(where, "key")
        state = loop.start(build("token_moe", BASE, shape_of(posts, budget), 0, posts.reader), posts, "token_moe", 0, budget)
        store.load_state(0, state)

        def watch(row: dict[str, Any]) -> None:
            if row["epoch"] == stop:
                store.save_state(0, state)
                raise KeyboardInterrupt

        loop.advance(state, posts, budget, 0, save=lambda s: None, watch=watch)
        return state

    whole = run(tmp_path / "a", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", 2)
    again = run(tmp_path / "b", None)
    assert again.history == whole.history
    assert all(torch.equal(again.best.tensors[name], value) for name, value in whole.best.tensors.items())


def config(**sections: object) -> str:
    return simulated.config(backbone={"kind": "dual_encoder", "model": "m"}, **sections)


def stages(*seeds: str, **method: object) -> bytes:
    head = ["--dataset", "sim", "--method", "token_moe", "--seeds", *seeds]
    assert train.main([*head, "--config", config(train=BUDGET, method=BASE | method)]) == 0
    assert evaluate.main([*head, "--config", config(evaluate={}, method=BASE | method)]) == 0
    first, last = map(int, seeds[0].split("-"))
    return (layout.run("sim", "token_moe", first, last) / "predictions.parquet").read_bytes()


def test_the_stages_train_and_answer_on_every_view_to_the_same_bytes() -> None:
    first = stages("0-1")
    out = layout.run("sim", "token_moe", 0, 1)
    weights, frame = (out / "weights.safetensors").read_bytes(), pl.read_parquet(out / "predictions.parquet")
    views = ["factual", "swap_t", "swap_v", "swap_tv", "held_t", "held_v", "held_tv", "context", "core"]
    assert frame["view"].unique(maintain_order=True).to_list() == views
    assert frame.height == 2 * len(views) * (100 + 3 * 100)
    for name in ("te", "nde_t", "nde_v", "nde_tv", "gates", "experts"):
        assert frame[name].null_count() == 0
    assert stages("0-1") == first
    assert (out / "weights.safetensors").read_bytes() == weights


def test_other_tokens_are_other_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed run leaves a finished seed behind: it is taken up with the same tokens, and not with others."""
    trained_seeds: list[int] = []
    once = job._train
    monkeypatch.setattr(job, "_train", lambda *given: trained_seeds.append(given[3]) or once(*given))
    monkeypatch.setattr(job.Folder, "remove", lambda folder: None)
    head = ["--dataset", "sim", "--method", "token_moe", "--seeds", "7-7", "--config", config(train=BUDGET, method=BASE)]
    try:
        for keep in (1.0, 1.0, 0.0):
            simulated.write_tokens(keep=keep)
            assert train.main(head) == 0
    finally:
        simulated.write_tokens()
    assert trained_seeds == [7, 7]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("common", "change"),
    [({"per_kind": 2}, {"z": 1.0}), ({"per_kind": 2}, {"balance": 1.0}), ({"per_kind": 2}, {"balancing": "bias"}), ({}, {"form": "B"})]
    + [({}, {"router": router}) for router in ("learned", "ce", "random", "constant", "always", "mediated")],
    ids=str,
)
def test_what_is_inherited_works_on_tokens(common: dict[str, Any], change: dict[str, Any], posts: Posts) -> None:
    method = trained(posts, common | change)
    found = method.answer(posts.inputs(posts.valid))
    torch.testing.assert_close(found.experts.sum(1), torch.ones(len(posts.valid)))
    assert not torch.equal(found.p, answer(trained(posts, common), posts))


def test_a_token_has_three_kinds_of_experts_to_choose_from() -> None:
    with pytest.raises(UserError, match="exceeds the 3 experts that a token may use"):
        methods.settings_of("token_moe", {"top_k": 4})
    assert methods.settings_of("token_moe", {"top_k": 4, "masked": False}).top_k == 4


def test_what_is_missing_or_does_not_fit_is_told(posts: Posts, folder: Path) -> None:
    path = layout.tokens("sim", "b", "truth")
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match=r"features of tokens are missing(.|\n)*truth\.safetensors(.|\n)*make reproduce"):
        TokenReader(posts.ids, "sim", "b", "estimated", "truth")
    tensors, _ = io.read_tensors(layout.tokens("sim", "b", "factual"))
    io.write_tensors(path, tensors, {"ids_sha256": "of other posts"})
    with pytest.raises(UserError, match="another manifest"):
        TokenReader(posts.ids, "sim", "b", "estimated", "truth")
    io.write_tensors(path, tensors, {"ids_sha256": ids_digest(pl.read_parquet(layout.manifest("sim"))["id"]), "backbone_key": "other"})
    with pytest.raises(UserError, match="are of another backbone"):
        TokenReader(posts.ids, "sim", "b", "estimated", "truth")
    path.write_bytes(whole)
    with pytest.raises(UserError, match="reads features of tokens, and got none"):
        trained(dataclasses.replace(posts, reader=None))
    with pytest.raises(UserError, match="lacks the section 'backbone'"):
        train.main(["--dataset", "sim", "--method", "token_moe", "--seeds", "0-0", "--config", simulated.config(train=BUDGET, method={})])


def test_the_settings_are_those_of_the_pooled_mixture_and_one_more() -> None:
    pooled, own = ({field.name for field in dataclasses.fields(methods.load(name).Settings)} for name in ("causal_moe", "token_moe"))
    assert own - pooled == {"masked"}
    assert json.loads(json.dumps(dataclasses.asdict(methods.settings_of("token_moe", {})))) == dataclasses.asdict(methods.settings_of("causal_moe", {})) | {
        "masked": True
    }
