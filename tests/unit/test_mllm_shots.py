"""Few-shot prompts: which posts are shown, what is taken for the post itself, and that features know nothing of them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from PIL import Image
from tests.unit import tiny_mllm
from tests.unit.test_features_stage import edits, manifest

from causalroute import layout
from causalroute.config import Backbone, Prompt
from causalroute.config import Mllm as Settings
from causalroute.counterfactual.paired import pair_inputs
from causalroute.errors import UserError
from causalroute.features.backbone import load_backbone
from causalroute.features.examples import draw, examples
from causalroute.io import read_tensors
from causalroute.mllm.chat import SLOT, Shot, control_strings
from causalroute.mllm.model import Mllm
from causalroute.stages import features as stage

pytestmark = pytest.mark.slow

PROMPTS = (
    Prompt(question="Is it sarcastic?", answers={"literal": "no", "sarcastic": "yes"}),
    Prompt(question="Meant so?", answers={"literal": "A", "sarcastic": "B"}, text="<<{text}>>"),
)
CLASSES = ("literal", "sarcastic")
RED, BLUE, GREEN = (Image.new("RGB", (60, 40), colour) for colour in ((200, 30, 30), (0, 30, 200), (20, 160, 40)))
SHOTS = (Shot("what a day", BLUE, "sarcastic"), Shot("tea at home", GREEN, "literal"))
COUNT, TRAIN = 9, 6


@pytest.fixture(scope="module", params=tiny_mllm.KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mllm:
    folder = tiny_mllm.save_mllm(tmp_path_factory.mktemp(request.param), request.param)
    return Mllm(folder, Settings(prompts=PROMPTS, image_side=64), "test")


def turn(text: str, image: Image.Image) -> dict[str, Any]:
    said = f'Text of the post: "{text}"\nIs it sarcastic?'
    return {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": said}]}


@pytest.mark.parametrize("count", [1, 2])
def test_shots_are_earlier_turns_of_the_conversation(model: Mllm, count: int) -> None:
    model.show(SHOTS[:count])
    said = [{"role": "assistant", "content": [{"type": "text", "text": PROMPTS[0].answers[shot.answer]}]} for shot in SHOTS[:count]]
    turns = [one for shot, reply in zip(SHOTS, said, strict=False) for one in (turn(shot.text, shot.image), reply)]
    whole = model.processor.apply_chat_template(
        [*turns, turn("so much fun", RED)], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    chat = model.chat("so much fun", RED, shots=True)
    assert torch.equal(chat.inputs["input_ids"], whole["input_ids"])
    assert torch.equal(chat.inputs["pixel_values"], whole["pixel_values"])


@pytest.mark.parametrize("count", [1, 2])
def test_only_the_own_text_and_image_are_marked(model: Mllm, count: int) -> None:
    model.show(SHOTS[:count])
    for text in ("so much fun", SHOTS[0].text):
        chat = model.chat(text, RED, shots=True)
        ids = chat.inputs["input_ids"][0]
        pictured = ids == model.image_token
        assert str(model.processor.tokenizer.decode(ids[chat.text])).strip('" ') == text
        assert chat.image.sum() * (count + 1) == pictured.sum(), "all images have one size here"
        assert chat.image.nonzero().min() > (pictured & ~chat.image).nonzero().max()
        assert chat.image.nonzero().max() < chat.text.nonzero().min()
    alone, nothing = model.chat("fun", None, shots=True), model.chat(None, None, shots=True)
    assert not alone.image.any()
    assert not (nothing.image | nothing.text).any()
    assert (alone.inputs["input_ids"] == model.image_token).any(), "the shots are whole before a single side too"


def test_posts_shown_cannot_speak_as_another_either(model: Mllm) -> None:
    model.show(SHOTS[:1])
    clean = model.chat("x", RED, shots=True)
    noisy = " ".join([*control_strings(model.processor.tokenizer), SLOT])
    model.show([Shot(noisy, BLUE, "sarcastic")])
    chat = model.chat("x", RED, shots=True)
    controls = torch.tensor(list(model.processor.tokenizer.get_added_vocab().values()))
    found = [torch.isin(one.inputs["input_ids"], controls).sum() for one in (clean, chat)]
    assert found[0] == found[1]
    assert SLOT in str(model.processor.tokenizer.decode(chat.inputs["input_ids"][0]))


def test_answers_depend_on_the_shots_and_not_on_the_batch(model: Mllm) -> None:
    model.show(SHOTS)
    chats = [model.chat(text, image, shots=True) for text, image in (("so much fun", RED), ("I love my happy monday", BLUE))]
    with torch.no_grad():
        together = model.log_likelihoods(chats)
        for row, chat in enumerate(chats):
            torch.testing.assert_close(model.log_likelihoods([chat])[0], together[row], atol=1e-4, rtol=1e-4)
        model.show([Shot(SHOTS[0].text, SHOTS[0].image, "literal"), SHOTS[1]])
        other = model.log_likelihoods([model.chat("so much fun", RED, shots=True)])
        plain = model.log_likelihoods([model.chat("so much fun", RED)])
    assert (other[0] - together[0]).abs().max() > 1e-5, "the answers of the shots are read"
    assert (plain[0] - together[0]).abs().max() > 1e-5


def posts(labels: list[int | None], splits: list[str]) -> pl.DataFrame:
    ids = [f"p{row}" for row in range(len(labels))]
    return pl.DataFrame({"id": ids, "split": splits, "label": pl.Series(labels, dtype=pl.Int8)})


def test_shots_are_of_the_train_split_and_balanced() -> None:
    splits = ["train", "valid", "id", "oracle_train", "ood"] * 12
    labels = [None if split in ("id", "ood") else row % 3 for row, split in enumerate(splits)]
    frame = posts(labels, splits)
    for seed in range(30):
        for shots in (1, 3, 5, 6, 12):
            rows = draw(frame, 3, shots, seed)
            assert len(set(rows)) == shots
            assert {splits[row] for row in rows} == {"train"}
            counts = Counter(labels[row] for row in rows)
            assert max(counts.values()) - min(counts.get(label, 0) for label in range(3)) <= 1
    assert draw(frame, 3, 6, 1) == draw(frame, 3, 6, 1) != draw(frame, 3, 6, 2)
    other = frame.with_columns(pl.when(pl.col("split") == "train").then(pl.col("label")).otherwise(0).cast(pl.Int8))
    assert draw(other, 3, 6, 1) == draw(frame, 3, 6, 1), "labels of other splits are not looked at"


def test_a_rare_class_gives_what_it_has_and_too_few_posts_are_told() -> None:
    frame = posts([0] * 7 + [1], ["train"] * 8)
    assert Counter(frame["label"][row] for row in draw(frame, 2, 6, 0)) == {0: 5, 1: 1}
    with pytest.raises(UserError, match="9 posts are to be shown"):
        draw(frame, 2, 9, 0)


def test_shots_that_change_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="shots change nothing"):
        Settings(prompts=PROMPTS, shots=2, zero_shot=False)
    with pytest.raises(ValueError, match="at least 0"):
        Settings(prompts=PROMPTS, shots=-1)


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl", "llava_onevision"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mllm.save_mllm(tmp_path_factory.mktemp(request.param), request.param)


def labelled(root: Path) -> pl.DataFrame:
    """Posts of three splits; labels of the test split are hidden."""
    splits = ["train"] * TRAIN + ["valid", "id", "id"]
    labels = [row % 2 if split != "id" else None for row, split in enumerate(splits)]
    return manifest(root, COUNT, visual="image").with_columns(split=pl.Series(splits), label=pl.Series(labels, dtype=pl.Int8))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAUSALROUTE_CACHE", str(tmp_path / "cache"))
    layout.raw("mine").mkdir(parents=True)
    layout.counterfactuals("mine", "own").parent.mkdir(parents=True)
    frame = labelled(layout.raw("mine"))
    frame.write_parquet(layout.manifest("mine"))
    edits(frame, image=True).write_parquet(layout.counterfactuals("mine", "own"))
    Image.new("RGB", (32, 32), (90, 90, 90)).save(layout.reference_image("mine"))
    return tmp_path


def run_stage(folder: Path, views: str = "factual", **more: Any) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    backbone = Backbone(kind="mllm", model=str(folder), batch_size=3, mllm=Settings(prompts=PROMPTS, image_side=48, **more))
    dataset = {"format": "mmsd", "task": "sarcasm", "backbone": "", "editor": "", "methods": [], "sources": [], "classes": CLASSES}
    config = json.dumps({"dataset": dataset, "backbone": dataclasses.asdict(backbone)})
    assert stage.main(["--dataset", "mine", "--backbone", "chat", "--views", views, "--config", config]) == 0
    return read_tensors(layout.features("mine", "chat", views))


def test_features_are_those_of_chats_without_shots(checkout: Path, folder: Path) -> None:
    plain, known = run_stage(folder)
    few, told = run_stage(folder, shots=3)
    assert all(torch.equal(plain[name], few[name]) for name in "tvk")
    assert all((plain[name] - few[name]).abs().max() > 1e-5 for name in ("z", "z_t", "z_v", "z_0"))
    shown = json.loads(told["shots"])
    assert len(shown) == 3
    assert set(shown) <= {f"post{row}" for row in range(TRAIN)}
    assert "shots" not in known
    keys = [known["backbone_key"], told["backbone_key"], run_stage(folder, shots=3, shots_seed=1)[1]["backbone_key"]]
    assert len(set(keys)) == 3


def test_scores_are_those_of_the_examples_and_the_post(checkout: Path, folder: Path) -> None:
    settings = Settings(prompts=PROMPTS, image_side=48, shots=2)
    few, _ = run_stage(folder, shots=2)
    edited, _ = run_stage(folder, "own", shots=2)
    frame, reference, root = labelled(layout.raw("mine")), layout.reference_image("mine"), layout.raw("mine")
    shown = examples(frame, CLASSES, settings, reference)
    assert sorted(one.answer for one in shown) == ["literal", "sarcastic"]
    for one in shown:
        row = frame["id"].to_list().index(one.id)
        assert (one.text.text, CLASSES[frame["label"][row]]) == (frame["text"][row], one.answer)
    model = Mllm(folder, settings, "test")
    model.show([Shot(one.text.text, one.image.load(root), one.answer) for one in shown])
    text, image = pair_inputs(frame, None, "k", reference)[-1].pair
    with torch.inference_mode():
        wanted = [model.log_likelihoods([model.chat(text.text, image.load(root), prompt, shots=True)], prompt)[0] for prompt in (0, 1)]
    torch.testing.assert_close(few["z"][-1], torch.stack(wanted), atol=1e-5, rtol=1e-5)
    assert edited["z_swap_tv"].shape == (COUNT - 1, 2, 2, 2, 2)


def test_a_label_outside_of_train_changes_no_byte(checkout: Path, folder: Path) -> None:
    run_stage(folder, shots=4)
    before = layout.features("mine", "chat", "factual").read_bytes()
    frame = pl.read_parquet(layout.manifest("mine"))
    hidden = frame.with_columns(pl.when(pl.col("split") == "train").then(pl.col("label")))
    hidden.write_parquet(layout.manifest("mine"))
    run_stage(folder, shots=4)
    assert layout.features("mine", "chat", "factual").read_bytes() == before


def test_shots_that_were_not_set_and_unknown_classes_are_told(checkout: Path, folder: Path) -> None:
    settings = Settings(prompts=PROMPTS, image_side=48, shots=2)
    backbone = load_backbone(Backbone(kind="mllm", model=str(folder), mllm=settings), "chat")
    frame, reference = labelled(layout.raw("mine")), layout.reference_image("mine")
    with pytest.raises(ValueError, match="2 examples are to be shown"):
        backbone.chats(pair_inputs(frame, None, "k", reference)[0], layout.raw("mine"))
    with pytest.raises(UserError, match=r"differ in \['ironic', 'sarcastic'\]"):
        examples(frame, ("literal", "ironic"), settings, reference)
