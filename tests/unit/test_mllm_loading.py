"""Multimodal language models of every kind are loaded without torchvision, and those that cannot be used are refused with a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.tiny_mllm import KINDS, save_mllm
from tests.unit.tiny_models import pictures, save_clip
from transformers import LlamaConfig, LlamaForCausalLM

from causalroute.config import Mllm, Prompt
from causalroute.errors import UserError
from causalroute.mllm.loading import image_token_id, load, render

TEXTS = ["so funny", "what a «lovely» day, isn't it? \U0001f600 not at all", "hm"]


def loaded(folder: Path) -> tuple[Any, Any]:
    return load(folder, settings(), where="backbone.folder")


def settings(**more: Any) -> Mllm:
    return Mllm(prompts=(Prompt(question="Is it?", answers={"a": "yes", "b": "no"}),), **more)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("mllm")
    return {kind: save_mllm(folder / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def model_and_processor(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> tuple[Any, Any]:
    return loaded(checkpoints[request.param])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    opened = [Image.open(folder / name).convert("RGB") for name in pictures(folder, len(TEXTS))]
    return [image.resize((40 + 30 * number, 50)) for number, image in enumerate(opened)]


def encode(processor: Any, texts: list[str | None], images: list[Any], side: str = "right", **more: Any) -> Any:
    """Chats of one turn each, as a batch; no special tokens are added to a prompt that its template begins with one."""
    prompts = []
    for text, image in zip(texts, images, strict=True):
        content = [{"type": "image"}] * (image is not None) + ([] if text is None else [{"type": "text", "text": text}])
        prompts.append(processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))
    bos = processor.tokenizer.bos_token
    more |= {"add_special_tokens": not (bos and prompts[0].startswith(bos)), "padding": True, "padding_side": side, "return_tensors": "pt"}
    pixels = [[] if image is None else [image] for image in images]
    return processor(text=prompts, images=pixels if any(pixels) else None, **more)


@torch.no_grad()
def states(model: Any, inputs: Any) -> torch.Tensor:
    return model.model(**inputs).last_hidden_state


def test_model_is_frozen_and_in_the_dtype_asked_for(checkpoints: dict[str, Path]) -> None:
    model, _ = load(checkpoints["llava"], settings(dtype="bfloat16"), where="backbone.folder")
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("shown", ["pair", "text", "image", "some"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_post_in_a_batch_is_read_as_it_is_alone(model_and_processor: tuple[Any, Any], images: list[Any], shown: str, side: str) -> None:
    model, processor = model_and_processor
    if shown == "some" and model.config.model_type == "mllama":
        pytest.skip("chats with an image and without have other inputs, and never share a pass")
    texts = [None] * len(TEXTS) if shown == "image" else TEXTS
    kept = {"pair": images, "image": images, "text": [None] * len(images), "some": [None, *images[1:]]}[shown]
    inputs = encode(processor, texts, kept, side)
    together = states(model, inputs)
    assert together.shape == (*inputs["input_ids"].shape, model.config.get_text_config().hidden_size)
    assert together.isfinite().all()
    for row, (text, image) in enumerate(zip(texts, kept, strict=True)):
        alone = states(model, encode(processor, [text], [image], side))[0]
        torch.testing.assert_close(together[row][inputs["attention_mask"][row].bool()], alone, atol=2e-5, rtol=0)


def test_last_of_the_hidden_states_is_the_last_hidden_state(model_and_processor: tuple[Any, Any], images: list[Any]) -> None:
    model, processor = model_and_processor
    inputs = encode(processor, TEXTS, images)
    with torch.no_grad():
        full = model(**inputs, output_hidden_states=True)
    torch.testing.assert_close(full.hidden_states[-1], states(model, inputs), atol=0, rtol=0)


def test_placeholders_and_offsets_tell_what_a_token_is_of(model_and_processor: tuple[Any, Any], images: list[Any]) -> None:
    model, processor = model_and_processor
    inputs = encode(processor, TEXTS, images, return_offsets_mapping=True, return_text_replacement_offsets=True)
    placed = inputs["input_ids"] == image_token_id(model, "here")
    assert 0 < placed.sum(1).min() <= placed.sum(1).max() <= 20
    for row, text in enumerate(TEXTS):
        (shift,) = inputs["text_replacement_offsets"][row] if "text_replacement_offsets" in inputs else [{"replacement": "", "text": ""}]
        prompt = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}], add_generation_prompt=True)
        start = prompt.index(text) + len(shift["replacement"]) - len(shift["text"])
        begin, end = inputs["offset_mapping"][row].T
        inside = (begin >= start) & (end <= start + len(text)) & (end > begin)
        assert processor.tokenizer.decode(inputs["input_ids"][row][inside]) == text


def test_the_image_is_seen(model_and_processor: tuple[Any, Any], images: list[Any]) -> None:
    model, processor = model_and_processor
    one, other = (states(model, encode(processor, ["so funny"], [image.resize((40, 50))]))[0, -1] for image in (images[0], images[0].rotate(90)))
    assert (one - other).abs().max() > 0.01


def test_tied_weights_are_not_missing_and_others_are(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints["gemma3"], tmp_path / "gemma3")
    weights = load_file(folder / "model.safetensors")
    assert not any("lm_head" in name for name in weights)
    gone = sorted(name for name in weights if "down_proj" in name)[0]
    save_file({name: weight for name, weight in weights.items() if name != gone}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights of the multimodal language model are missing, the first is .*down_proj") as error:
        loaded(folder)
    assert error.value.where == f"backbone.folder: {folder}"


def test_text_model_and_dual_encoder_are_refused(tmp_path: Path) -> None:
    settings = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
    LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(tmp_path / "llama")
    with pytest.raises(UserError, match="type 'llama' does not read images and text in one chat"):
        loaded(tmp_path / "llama")
    with pytest.raises(UserError, match="type 'clip' does not read images and text in one chat"):
        loaded(save_clip(tmp_path / "clip"))


def broken(folder: Path, target: Path, *names: str) -> Path:
    shutil.copytree(folder, target)
    for name in names:
        (target / name).unlink()
    return target


def test_incomplete_folders_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the checkpoint has no chat template"):
        loaded(broken(checkpoints["llava"], tmp_path / "template", "chat_template.json"))
    with pytest.raises(UserError, match="cannot load the image preprocessing"):
        loaded(broken(checkpoints["qwen2_5_vl"], tmp_path / "pixels", "preprocessor_config.json"))
    with pytest.raises(UserError, match="the tokenizer has no vocabulary"):
        loaded(broken(checkpoints["qwen2_5_vl"], tmp_path / "words", "tokenizer.json", "tokenizer_config.json"))
    with pytest.raises(UserError, match="cannot load the tokenizer"):
        loaded(broken(checkpoints["llava"], tmp_path / "tokens", "tokenizer.json", "tokenizer_config.json"))
    with pytest.raises(UserError, match="cannot load the multimodal language model"):
        loaded(broken(checkpoints["internvl"], tmp_path / "weights", "model.safetensors"))


def test_unknown_architecture_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints["smolvlm"], tmp_path / "unknown")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mystery"}))
    with pytest.raises(UserError, match=r"cannot load the multimodal language model.*mystery"):
        loaded(folder)


def test_tokenizer_without_the_image_tokens_of_its_architecture_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints["gemma3"], tmp_path / "gemma3")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({name: value for name, value in settings.items() if "boi" not in json.dumps([name, value])}))
    with pytest.raises(UserError, match=r"cannot load the processor.*boi_token"):
        loaded(folder)


def test_chat_template_of_the_tokenizer_is_taken_where_there_is_no_other(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = broken(checkpoints["qwen2_5_vl"], tmp_path / "qwen", "chat_template.json")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": "{{ messages[0]['role'] }}!"}))
    _, processor = loaded(folder)
    assert processor.apply_chat_template([{"role": "user", "content": []}]) == "user!"


def test_padding_token_is_the_end_token_where_there_is_none(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints["llava"], tmp_path / "llava")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({name: value for name, value in settings.items() if name != "pad_token"}))
    assert loaded(folder)[1].tokenizer.pad_token == "</s>"


def test_fewer_bits_need_a_gpu(checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="quantize"):
        load(checkpoints["llava"], settings(quantize="4bit"), where="here")


def test_templates_tell_a_fixed_day_and_do_not_think_aloud(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints["llava"], tmp_path / "dated")
    dated = "{{ strftime_now('%d %b %Y') }}{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
    for path in folder.glob("chat_template*"):
        path.unlink()
    (folder / "chat_template.jinja").write_text(dated + "{% for message in messages %}{{ message['content'][0]['text'] }}{% endfor %}")
    _, processor = loaded(folder)
    assert render(processor, [{"role": "user", "content": [{"type": "text", "text": "hello"}]}], reply=True) == "1 January 2025hello"
