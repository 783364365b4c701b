"""Replies that a multimodal LLM writes: how they are read, that they are plainly greedy, and what becomes of those that name no class."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests import simulated
from tests.unit import tiny_mllm
from tests.unit.test_mllm_chat import BLUE, PROMPTS, RED
from tests.unit.test_mllm_shots import CLASSES, COUNT, SHOTS, TRAIN, checkout, run_stage

from causalroute import io, layout
from causalroute.config import Dataset
from causalroute.config import Mllm as Settings
from causalroute.errors import UserError
from causalroute.evaluation.collect import charged, read_method
from causalroute.evaluation.metrics import Items, applicable, registry
from causalroute.methods.base import Posts, Shape
from causalroute.mllm.chat import Chat
from causalroute.mllm.model import Mllm
from causalroute.mllm.replies import UNASKED, UNPARSED, Speaker, parsed
from causalroute.rng import torch_generator
from causalroute.stages import evaluate, train
from causalroute.training.job import build

pytestmark = pytest.mark.slow

__all__ = ["checkout"]
LIMIT = 5
ANSWERS = {"literal": "no", "sarcastic": "yes"}


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("Yes.", "sarcastic"),
        ("**NO**\n", "literal"),
        ("no, no, no", "literal"),
        ("yes and no", None),
        ("nothing to say", None),
        ("eyes", None),
        ("", None),
        ("I do not know", None),
        ("The answer is: yes!", "sarcastic"),
    ],
)
def test_a_reply_names_the_one_class_whose_words_it_holds(reply: str, label: str | None) -> None:
    assert parsed(reply, ANSWERS) == label


def test_words_inside_of_a_longer_answer_are_not_counted() -> None:
    answers = {"literal": "not sarcastic", "sarcastic": "sarcastic"}
    assert parsed("It is NOT sarcastic.", answers) == "literal"
    assert parsed("It is sarcastic.", answers) == "sarcastic"
    assert parsed("It is not sarcastic, or is it sarcastic?", answers) is None
    assert parsed("I pick (B)", {"a": "(A)", "b": "(B)"}) == "b"


def test_answers_that_differ_in_case_alone_cannot_be_generated() -> None:
    prompts = (dataclasses.replace(PROMPTS[0], answers={"literal": "a", "sarcastic": "A"}),)
    with pytest.raises(ValueError, match="differ in more"):
        Settings(prompts=prompts, generate=3)


@pytest.fixture(scope="module", params=tiny_mllm.KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mllm.save_mllm(tmp_path_factory.mktemp(request.param), request.param)


def naive(model: Mllm, chat: Chat) -> str:
    """Greedy decoding by the whole model on the whole sequence, a token at a time."""
    inputs, said, end = dict(chat.inputs), [], model.network.generation_config.eos_token_id
    for _ in range(LIMIT):
        with torch.no_grad():
            token = int(model.network(**inputs).logits[0, -1].argmax())
        if token in (end if isinstance(end, list) else [end]):
            break
        said.append(token)
        for name, value in inputs.items():
            if value.shape[:2] == (1, chat.length + len(said) - 1):
                seen = torch.tensor([[token if name == "input_ids" else int(name == "attention_mask")]], dtype=value.dtype)
                inputs[name] = torch.cat([value, value[:, -1:] if name == "cross_attention_mask" else seen], 1)
    return str(model.processor.tokenizer.decode(said, skip_special_tokens=True))


@pytest.mark.parametrize("shots", [False, True])
def test_replies_are_greedy_whatever_the_batch(folder: Path, shots: bool) -> None:
    model = Mllm(folder, Settings(prompts=PROMPTS, image_side=64), "test")
    model.show(SHOTS)
    chats = [model.chat(text, image, shots=shots) for text, image in (("so much fun", RED), ("I love my happy monday", BLUE), ("a", RED))]
    wanted = [naive(model, chat) for chat in chats]
    speaker = Speaker(model, LIMIT)
    with torch.inference_mode():
        assert speaker(chats) == wanted
        assert speaker(chats[1:2]) == wanted[1:2]
    assert any(wanted)


def test_penalties_and_temperatures_of_a_checkpoint_do_not_count(tmp_path: Path) -> None:
    folder, found = tiny_mllm.save_mllm(tmp_path / "llava", "llava"), []
    for more in ({}, {"do_sample": True, "temperature": 9.0, "repetition_penalty": 5.0, "no_repeat_ngram_size": 1}):
        path = folder / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | more))
        model = Mllm(folder, Settings(prompts=PROMPTS, image_side=64), "test")
        with torch.inference_mode():
            found.append(Speaker(model, 12)([model.chat("so much fun", RED)]))
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mllm.save_mllm(tmp_path_factory.mktemp("llava"), "llava")


SPOKEN = ("Yes!", "Well, yes or no", "No.")


def scripted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Lets the model say `SPOKEN` one after the other; returns what was asked."""
    asked: list[Any] = []

    def says(speaker: Speaker, chats: list[Chat]) -> list[str]:
        asked.extend(chats)
        return [SPOKEN[(len(asked) - len(chats) + place) % 3] for place in range(len(chats))]

    monkeypatch.setattr(Speaker, "__call__", says)
    return asked


@pytest.mark.parametrize("shots", [0, 2])
def test_the_stage_keeps_the_class_of_each_reply_and_tells_what_is_unparsed(
    checkout: Path, llava: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shots: int
) -> None:
    asked = scripted(monkeypatch)
    tensors, metadata = run_stage(llava, generate=4, shots=shots)
    assert len(asked) == COUNT - TRAIN
    assert tensors["replies"].tolist() == [UNASKED] * TRAIN + [1, UNPARSED, 0]
    assert json.loads(metadata["unparsed"]) == {"id": {"replies": 2, "unparsed": 1}, "valid": {"replies": 1, "unparsed": 0}}
    assert "replies, split id: 1 of 2 unparsed (50.0%)" in capsys.readouterr().err
    again, _ = run_stage(llava, generate=4, shots=shots)
    assert len(asked) == COUNT - TRAIN, "what is stored is not asked again"
    assert torch.equal(again["replies"], tensors["replies"])
    edited, _ = run_stage(llava, "own", generate=4, shots=shots)
    assert "replies" not in edited
    assert len(asked) == COUNT - TRAIN, "views are not replied to"


def test_replies_change_neither_features_nor_scores(checkout: Path, folder: Path) -> None:
    plain, _ = run_stage(folder)
    spoken, _ = run_stage(folder, generate=3)
    assert all(torch.equal(plain[name], spoken[name]) for name in plain)
    silent, _ = run_stage(folder, generate=3, zero_shot=False, shots=1)
    assert set(silent) == {"t", "v", "k", "replies"}


def posts(replies: list[int] | None) -> Posts:
    views = {name: torch.zeros(4, 3) for name in "tv"}
    ok, labels = torch.zeros(4, dtype=torch.bool), torch.tensor([0, 1, 0, 1])
    given = None if replies is None else torch.tensor(replies, dtype=torch.int8)
    return Posts(list("abcd"), ["train", "valid", "valid", "valid"], ["x"] * 4, labels, 2, views, ok, ok, replies=given)


def test_a_reply_is_all_of_the_answer() -> None:
    told = posts([-2, 1, -1, 0])
    method = build("zero_shot_generated", {}, Shape(3, 3, 2, 4, 0.0), 0)
    method.prepare(told, torch_generator(0))
    answer = method.answer(told.inputs(torch.tensor([3, 1, 2])))
    assert answer.p.tolist() == [[1, 0], [0, 1], [0.5, 0.5]]
    assert answer.unparsed is not None
    assert answer.unparsed.tolist() == [False, False, True]
    with pytest.raises(UserError, match="have no reply"):
        method.answer(told.inputs(torch.tensor([0])))
    with pytest.raises(UserError, match="generate above 0"):
        method.prepare(posts(None), torch_generator(0))


@pytest.mark.parametrize("classes", [2, 3])
def test_unparsed_replies_count_as_wrong_and_are_uniform_otherwise(classes: int) -> None:
    labels = np.arange(60) % classes
    unparsed = (np.arange(60) % 4 == 0)[None]
    said = np.where(unparsed[..., None], 1 / classes, np.eye(classes)[labels][None])
    p = charged(said, labels, unparsed)
    items = Items(labels=labels, p=p, unparsed=unparsed)
    values = {metric.name: metric.value(metric.terms(items).sum(1))[0] for metric in applicable(registry(), items)}
    assert values["accuracy"] == pytest.approx(0.75)
    assert values["unparsed"] == pytest.approx(0.25)
    assert values["nll"] == pytest.approx(0.25 * np.log(classes), abs=1e-5)
    assert np.abs(p - said).max() < 1e-5
    assert np.allclose(p.sum(-1), 1)
    assert "unparsed" not in {metric.name for metric in applicable(registry(), dataclasses.replace(items, unparsed=None))}


def test_it_is_a_row_of_factual_posts_with_a_share_of_unparsed_replies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    simulated.write(train=60, valid=20, test=20)
    path, frame = layout.features("sim", "b", "factual"), pl.read_parquet(layout.manifest("sim"))
    tensors, metadata = io.read_tensors(path)
    replies = torch.where(torch.tensor((frame["split"] == "train").to_list()), -2, torch.arange(frame.height) % 3 - 1).to(torch.int8)
    order = list(simulated.CLASSES)[::-1]
    io.write_tensors(path, tensors | {"replies": replies}, metadata | {"answers": io.canonical_json(order)})
    config = simulated.config(train={"epochs": 1}, method={})
    job = ["--dataset", "sim", "--method", "zero_shot_generated", "--seeds", "0-1", "--config", config]
    assert train.main(job) == 0
    assert evaluate.main(job) == 0
    file = layout.run("sim", "zero_shot_generated", 0, 1) / "predictions.parquet"
    found = pl.read_parquet(file)
    assert found["view"].unique().to_list() == ["factual"]
    dataset = Dataset(format="mmsd", task="sarcasm", classes=CLASSES, backbone="b", editor="e", methods=(), sources=())
    items = read_method([file], [0, 1], dataset)["id"].items
    given = dict(zip(frame["id"], replies.tolist(), strict=True))
    first = found.filter((pl.col("split") == "id") & (pl.col("seed") == 0)).sort("id")
    right = [given[name] >= 0 and 1 - given[name] == label for name, label in zip(first["id"], first["label"], strict=True)]
    assert items.hits[0].tolist() == [float(one) for one in right]
    assert items.unparsed is not None
    assert items.unparsed[0].tolist() == [given[name] == -1 for name in first["id"]]
    selected = json.loads((file.parent / "selection.json").read_text())["seed0"]["valid_accuracy"]
    assert selected == pytest.approx(read_method([file], [0, 1], dataset)["valid"].items.hits[0].mean())
