"""The causal mixture inside a multimodal LLM: what it learns, what it keeps, what each setting changes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from tests.unit.tiny_posts import read_posts, tiny

from causalroute import methods
from causalroute.config import Train
from causalroute.errors import UserError
from causalroute.methods.base import Method, Posts, Shape
from causalroute.methods.lora_moe import Term
from causalroute.mllm.posts import Reader, Views
from causalroute.rng import torch_generator
from causalroute.training import loop
from causalroute.training.checkpoint import Folder
from causalroute.training.job import build

pytestmark = pytest.mark.slow

QUICK = {"pass_size": 16, "checkpointing": False, "lr": 1.0, "context_steps": 20, "router": "rule", "reweight": False, "ramp_start": 0.0, "ramp_end": 0.1}
SIZES = {"train": 48, "valid": 16, "ood": 8}
Trained = tuple[Method, list[dict[str, Any]]]


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl", "mllama"])
def posts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Posts:
    """With images, of every kind of model: image tokens of one number, of any, and none but a mark."""
    folder = tmp_path_factory.mktemp("posts")
    return read_posts(tiny(folder / "model", request.param), folder / "raw", SIZES)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Posts:
    """Without images, which is quicker."""
    folder = tmp_path_factory.mktemp("words")
    return read_posts(tiny(folder / "model"), folder, SIZES, images=False)


def fresh(posts: Posts, settings: dict[str, Any] | None = None, seed: int = 0) -> Method:
    return build("lora_moe", QUICK | (settings or {}), Shape(32, 32, 2, 32, 0.1), seed, posts.reader)


def trained(posts: Posts, settings: dict[str, Any] | None = None, epochs: int = 1, lr: float = 0.005, seed: int = 0) -> Trained:
    method, train = fresh(posts, settings, seed), Train(epochs=epochs, batch_size=32, lr=lr, weight_decay=0.0)
    state = loop.start(method, posts, "lora_moe", seed, train)
    loop.advance(state, posts, train, seed, save=lambda s: None, watch=lambda row: None)
    return method, state.history


@torch.no_grad()
def answer(method: Method, posts: Posts, split: str = "valid") -> torch.Tensor:
    return method.answer(posts.inputs(posts.rows(split))).p


def digest(tensors: dict[str, torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(name.encode() + value.contiguous().numpy().tobytes() for name, value in tensors.items())).hexdigest()


def test_training_leaves_the_model_as_it_was_and_repeats_to_the_byte(posts):
    network = posts.reader.network
    before, state = digest(network.state_dict()), torch.get_rng_state()
    (first, history), (second, again) = (trained(posts, {"dropout": 0.2}) for _ in range(2))
    assert digest(network.state_dict()) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert digest(first.state_dict()) == digest(second.state_dict())
    assert history == again
    assert digest(trained(posts, {"dropout": 0.2}, seed=1)[0].state_dict()) != digest(first.state_dict())


def test_what_is_kept_holds_no_weight_of_the_model_and_answers_the_same(posts):
    method, _ = trained(posts)
    kept = {name: value.clone() for name, value in method.kept().items()}
    assert {name.partition(".")[0] for name in method.state_dict()} == {"adapters", "head", "evidence", "gate"} - (
        {"gate"} if not method.gate.router else set()
    )
    assert {name.partition(".")[0] for name, _ in method.named_parameters()} == {"adapters", "head"}
    frozen = {value.data_ptr() for value in posts.reader.network.state_dict().values()}
    assert not frozen & {value.data_ptr() for value in method.state_dict().values()}
    expected = 4 * 4 * sum(sum(place.frozen.weight.shape) for place in method.adapters._places)
    again = fresh(posts, {"rank": 8}, seed=5)
    assert sum(value.numel() for name, value in kept.items() if name.startswith("adapters")) == 2 * expected
    assert not torch.equal(answer(again, posts), answer(method, posts))
    again.restore(kept, method.extra())
    assert torch.equal(answer(again, posts), answer(method, posts))


def test_a_killed_training_continues_to_the_same_bytes(words, tmp_path):
    train = Train(epochs=2, batch_size=32, lr=0.005)
    whole = trained_by(words, train, None, Folder(tmp_path / "a", "key"))
    with pytest.raises(KeyboardInterrupt):
        trained_by(words, train, 1, Folder(tmp_path / "b", "key"))
    base = sum(value.nbytes for value in words.reader.network.state_dict().values())
    resumed = trained_by(words, train, None, Folder(tmp_path / "b", "key"))
    assert digest(resumed.best.tensors) == digest(whole.best.tensors)
    assert resumed.history == whole.history
    names = [name for name in resumed.method.state_dict() if "language_model" in name or "vision" in name]
    assert (names, base > 0) == ([], True)


def trained_by(posts: Posts, train: Train, stop: int | None, folder: Folder) -> loop.State:
    state = loop.start(fresh(posts), posts, "lora_moe", 0, train)
    folder.load_state(0, state)

    def watch(row: dict[str, Any]) -> None:
        if row["epoch"] == stop:
            folder.save_state(0, state)
            raise KeyboardInterrupt

    loop.advance(state, posts, train, 0, save=lambda s: None, watch=watch)
    return state


def test_passes_add_up_to_the_loss_of_the_module(posts):
    """Small passes, or one large one, or one graph of everything: the same gradients."""
    method = fresh(posts)
    method.prepare(posts, torch_generator(0))
    with torch.no_grad():
        for weight in method.adapters.parameters():
            weight.add_(torch.empty(weight.shape).normal_(0, 0.05, generator=torch_generator(1)))
    rows, parameters = posts.train[:12], [p for p in method.parameters() if p.requires_grad]
    found = []
    for size in (3, 16):
        method.settings = dataclasses.replace(method.settings, pass_size=size)
        losses = method.loss(posts, rows, 1.0, torch_generator(2))
        found.append((losses, torch.autograd.grad(losses["loss"], parameters)))
    (a, few), (b, many) = found
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(few, many, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(a["loss"], a["s"] + a["own"])


def test_only_posts_that_count_are_passed_through_the_model(words):
    method = fresh(words, {"own": 0.0})
    method.prepare(words, torch_generator(0))
    some = words.text_ok.clone()
    some[words.train[:5]] = False
    data = dataclasses.replace(words, text_ok=some)
    terms: list[Term] = list(method._mixed(data, words.train[:20], method._known(words.train[:20]), 1.0, 0))
    treated = method.answer(words.inputs(words.train[:20])).gates[:, 1] == 1
    assert [term.raw.text for term in terms] == ["t", "t_swap"], "no images are swapped here"
    assert terms[0].raw.rows.tolist() == words.train[:20].tolist()
    assert set(terms[1].raw.rows.tolist()) <= set(words.train[5:20].tolist())
    assert treated.any()
    assert float(sum(term.weights.sum() for term in terms)) == pytest.approx(1.0)
    assert [term.raw.text for term in method._mixed(data, words.train[:20], method._known(words.train[:20]), 0.0, 0)] == ["t"]


def test_an_expert_alone_sees_accepted_swaps_of_the_sides_it_treats(posts):
    method, seen = fresh(posts), set()
    ok = posts.text_ok.clone()
    ok[posts.train[:10]] = False
    data = dataclasses.replace(posts, text_ok=ok)
    for seed in range(60):
        for term in method._own(data, posts.train, 1.0, 0, torch_generator(seed)):
            expert = int(term.routes(torch.tensor([0])).argmax())
            seen.add((expert, term.raw.text, term.raw.image))
            assert len(term.raw.rows) == (38 if term.raw.text == "t_swap" else 48)
    both = {(text, image) for text in ("t", "t_swap") for image in ("v", "v_swap")}
    sides = {0: {("t", "v")}, 1: {("t", "v"), ("t_swap", "v")}, 2: {("t", "v"), ("t", "v_swap")}, 3: both}
    assert seen == {(expert, *pair) for expert, pairs in sides.items() for pair in pairs}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_counterfactual_training_removes_a_planted_shortcut(tmp_path, seed):
    data = read_posts(tiny(tmp_path / "model"), tmp_path, {"train": 256, "valid": 64, "ood": 128}, images=False)
    labels, accuracy = data.labels[data.rows("ood")], {}
    for name, settings in (("plain", {"swaps": False, "own": 0.0}), ("lora_moe", {})):
        method, history = trained(data, {"context_steps": 60, "pass_size": 32, **settings}, epochs=8, seed=seed)
        accuracy[name] = (answer(method, data, "ood").argmax(1) == labels).float().mean().item()
        assert history[-1]["train/s"] < 0.85 * history[0]["train/s"]
    assert accuracy["plain"] < 0.75
    assert accuracy["lora_moe"] > 0.9


CHANGES = [
    ({}, {"ramp_start": 0.6, "ramp_end": 0.7}), ({}, {"ramp_end": 0.9}), ({}, {"folds": 3}), ({}, {"context_hidden": 8}), ({}, {"context_steps": 30}),
    ({}, {"clip": 0.5}), ({}, {"router": "always"}), ({}, {"router": "constant"}), ({}, {"threshold": 9.0}), ({}, {"temperature": 0.5}),
    ({"threshold": 9.0}, {"reweight": True}), ({"threshold": 9.0, "reweight": True}, {"ipw_clip": 0.5}), ({}, {"per_kind": 2}),
    ({"router": "constant"}, {"top_k": 1}), ({}, {"rank": 2}), ({}, {"alpha": 4.0}), ({}, {"dropout": 0.5}), ({}, {"targets": ["q_proj"]}), ({}, {"own": 0.0}),
    ({}, {"swaps": False}), ({"per_kind": 2}, {"balance": 1.0}), ({"per_kind": 2}, {"z": 1.0}), ({}, {"lr": 0.1}),
    ({"router": "constant", "top_k": 0}, {"tokens": "own"}),
]  # fmt: skip


@pytest.mark.parametrize(("common", "change"), CHANGES, ids=[json.dumps(change) for _, change in CHANGES])
def test_every_setting_changes_the_result(common, change, words):
    assert not torch.equal(seen_by(json.dumps(common), words), seen_by(json.dumps(common | change), words))


def seen_by(settings: str, posts: Posts, known: dict[str, torch.Tensor] = {}) -> torch.Tensor:  # noqa: B006 - a cache
    if settings not in known:
        method, _ = trained(posts, json.loads(settings))
        with torch.no_grad():
            found = method.answer(posts.inputs(posts.valid))
        known[settings] = torch.cat([found.p, found.te, found.gates], 1)
    return known[settings]


def test_no_setting_is_untested():
    tested = {key for _, change in CHANGES for key in change}
    same = {"pass_size", "checkpointing"}  # they change memory: see the tests of passes and of adapters
    assert tested | same == {field.name for field in dataclasses.fields(methods.load("lora_moe").Settings)}


def test_mistakes_are_told(words, monkeypatch):
    with pytest.raises(UserError, match="exceeds the 4 experts"):
        methods.settings_of("lora_moe", {"top_k": 5})
    with pytest.raises(UserError, match="rank and pass_size must be at least 1"):
        methods.settings_of("lora_moe", {"rank": 0})
    without = dataclasses.replace(words, reader=None)
    method = build("lora_moe", QUICK, Shape(32, 32, 2, 32, 0.1), 0)
    method.prepare(without, torch_generator(0))
    for ask in (lambda: method.loss(without, words.train, 0.0, torch_generator(0)), lambda: method.scores(without.inputs(words.valid))):
        with pytest.raises(UserError, match="trains inside a multimodal LLM, and got none"):
            ask()
    spread = type("Spread", (), {"parameters": lambda self: iter([torch.zeros(1), torch.zeros(1, device="meta")])})()
    monkeypatch.setattr(words.reader, "network", spread)
    with pytest.raises(UserError, match="on one device"):
        method.attach(words.reader, torch_generator(0))


def test_attribute_words_are_refused_and_unknown_posts_told(words):
    reader = words.reader
    attributes = reader.views.manifest.with_columns(attributes=reader.views.manifest["text"])
    other = Reader(reader.mllm, words.ids, Views(attributes, None, None, Path("none.png")), Path())
    with pytest.raises(UserError, match="attribute words"):
        other.chat(0, "t", "v", 0)
    edited = reader.views._frames[0]
    views = Views(reader.views.manifest, edited[1:], edited.with_columns(t_swap=pl.Series([[text] for text in edited["t_c"]])), Path("none.png"))
    with pytest.raises(UserError, match=r"no view 't_s'(.|\n)*id p0"):
        views.one("t_s", "p0", 0)
    assert views.one("t_held_swap", "p0", 1).text == edited["t_c"][0], "the other editor's, whose only swap stands for all"


def test_experts_of_one_side_may_keep_to_its_tokens(posts):
    method = fresh(posts, {"tokens": "own", "per_kind": 1})
    _, batch = next(iter(posts.reader.passes(posts.train[:4], "t", "v", 0, 4)))
    weights = method._at_tokens(torch.ones(len(batch.answer), 4), batch)  # keep, text, image, both
    assert weights.shape == (*batch.text.shape, 4)
    image, text, rest = batch.image, batch.text, ~(batch.image | batch.text)
    for places, wanted in ((image, [1, 0, 1, 1]), (text, [1, 1, 0, 1]), (rest, [1, 1, 1, 1])):
        assert places.any()
        assert (weights[places] == torch.tensor(wanted)).all()
    assert fresh(posts)._at_tokens(torch.ones(4, 4), batch).shape == (4, 4)
    one, other = (answer(trained(posts, {"tokens": tokens})[0], posts) for tokens in ("own", "all"))
    assert not torch.equal(one, other)
