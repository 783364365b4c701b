"""ONNX files of encoders against torch, and the example of the documentation, which runs on them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image, ImageOps
from tests.conftest import ROOT
from tests.unit import random_weights
from tests.unit import tiny_models as tiny
from tokenizers import Tokenizer

from causalroute.config import Backbone as Settings
from causalroute.errors import UserError
from causalroute.evaluation.calibration import soften
from causalroute.features.backbone import load_backbone
from causalroute.methods.base import Inputs
from causalroute.serving import onnx as heads
from causalroute.serving import towers
from causalroute.serving.onnx_graph import open_session

pytestmark = pytest.mark.slow

WANTED = {"ids": "ids", "mask": "attention_mask"}
TEXTS = ["the sun shines on my parade", "", "so much fun " * 30, "rain"]


def backbone(folder: Path, kind: str) -> Any:
    if kind in ("pair", "words"):
        models = {"text_model": str(tiny.save_bert(made(folder, "bert")))}
        models |= {"image_model": str(tiny.save_vit(made(folder, "vit"), pooler=False))} if kind == "pair" else {}
        return load_backbone(Settings(kind="encoder_pair", **models), "tiny")
    save = {"clip": tiny.save_clip, "siglip": tiny.save_siglip}[kind]
    return load_backbone(Settings(kind="dual_encoder", model=str(save(made(folder, kind)))), "tiny")


def made(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("clip")
    encoder = backbone(folder, "clip")
    paths = towers.export(encoder, folder / "out", notes={"backbone": "tiny"})
    assert [path.name for path in paths] == ["tokenizer.json", "text.onnx", "image.onnx"] == [path.name for path in paths if path.is_file()]
    return encoder, folder / "out"


@torch.no_grad()
def assert_features_agree(encoder: Any, folder: Path) -> None:
    rows = Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(TEXTS)
    (found,) = open_session(folder / "text.onnx").run(None, {name: np.array([getattr(row, key) for row in rows]) for name, key in WANTED.items()})
    wanted = torch.cat([encoder.encode_texts(*encoder.collate([one])) for one in encoder.tokenize_many(TEXTS)])
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5, rtol=1e-4)
    for count in (1, 3) if encoder.has_images else ():
        pixels = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))
        (found,) = open_session(folder / "image.onnx").run(None, {"pixels": pixels.numpy()})
        np.testing.assert_allclose(found, encoder.encode_images(pixels).numpy(), atol=1e-5, rtol=1e-4)


def test_clip_towers_give_its_features(clip: tuple[Any, Path]) -> None:
    assert_features_agree(*clip)
    told = {one.key: one.value for one in onnx.load(clip[1] / "image.onnx").metadata_props}
    assert told["backbone"] == "tiny"
    assert str(ROOT).encode() not in (clip[1] / "image.onnx").read_bytes()


@pytest.mark.parametrize("kind", ["siglip", "pair", "words"])
def test_other_towers_give_their_features(tmp_path: Path, kind: str) -> None:
    encoder = backbone(tmp_path, kind)
    paths = towers.export(encoder, tmp_path / "out")
    assert [path.name for path in paths] == ["tokenizer.json", "text.onnx", "image.onnx"][: 2 + encoder.has_images]
    assert_features_agree(encoder, tmp_path / "out")


@torch.no_grad()
def test_the_example_of_the_documentation_runs_without_torch(clip: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, folder = clip
    weights = random_weights.write(folder / "w.safetensors", "erm", seeds=(0, 1), text_dim=encoder.text_dim, image_dim=encoder.image_dim)
    heads.export(weights, [1.5], random_weights.CLASSES, folder / "head.onnx")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), re.S)
    (code,) = (block for block in blocks if "InferenceSession" in block)
    assert not re.search("torch|transformers|causalroute", code)
    monkeypatch.chdir(folder)
    example: dict[str, Any] = {}
    exec(compile(code, "docs/export.md", "exec"), example)

    pictures = [Image.linear_gradient("L").convert("RGB").resize((70, 50)), Image.radial_gradient("L").convert("RGB").resize((33, 80))]
    t = torch.cat([encoder.encode_texts(*encoder.collate([one])) for one in encoder.tokenize_many(TEXTS[:2])])
    v = encoder.encode_images(torch.stack([encoder.preprocess(picture) for picture in pictures]))
    inputs = Inputs(weights.standard.apply("t", t.half()), weights.standard.apply("v", v.half()), texts=[])
    p = np.stack([soften(weights.restore(seed).answer(inputs).p.double().numpy(), 1.5) for seed in (0, 1)])
    found = example["predict"](TEXTS[:2], pictures)
    probabilities = np.stack([row for _, row, _ in found])
    np.testing.assert_allclose(probabilities, p.mean(0), atol=5e-3)  # a feature half way between two numbers of half precision may be rounded either way
    assert [name for name, _, _ in found] == [random_weights.CLASSES[best] for best in p.mean(0).argmax(-1)]


def test_a_crop_of_the_example_is_that_of_the_model() -> None:
    """The published CLIP resizes the shorter side and crops the centre."""
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 24, "width": 24})
    code = re.search(r"^def pixels.*?(?=^def predict)", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), re.S | re.M)
    assert code
    example: dict[str, Any] = {"np": np, "Image": Image, "ImageOps": ImageOps, "steps": {name: processor.to_dict().get(name) for name in towers.STEPS}}
    exec(code[0], example)
    picture = Image.linear_gradient("L").convert("RGB").resize((75, 50))
    np.testing.assert_allclose(example["pixels"](picture), processor(picture, return_tensors="np")["pixel_values"][0], atol=1e-4)


def test_a_tower_that_differs_from_torch_is_refused(clip: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(towers, "to_onnx", lambda *_, **__: onnx.load(clip[1] / "text.onnx"))
    monkeypatch.setattr(clip[0], "encode_texts", lambda ids, mask: torch.ones(len(ids), clip[0].text_dim))
    with pytest.raises(UserError, match="differs from torch"):
        towers.export(clip[0], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_what_has_no_towers_is_refused(clip: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="multimodal LLM cannot be exported"):
        towers.export(object(), tmp_path)
    monkeypatch.setattr(towers, "MOST", 1000)
    with pytest.raises(UserError, match="larger than 2 GiB"):
        towers.export(clip[0], tmp_path)
    monkeypatch.setattr(clip[0].tokens, "tokenizer", object())
    with pytest.raises(UserError, match="written in Python"):
        towers.export(clip[0], tmp_path / "none")
    assert not (tmp_path / "none").exists()
