"""The pipeline's own CLIP: same bytes after an interruption, loadable through the Auto classes, and pooling where the text ends."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from causalroute.config import Pretrain
from causalroute.data.planted import captions, grammar, render
from causalroute.errors import UserError
from causalroute.features import pretrain as module
from causalroute.features.pretrain import Pool, batch, build_model, build_tokenizer, pretrain, rate, to_pixels
from causalroute.io import read_json
from causalroute.rng import generator
from causalroute.stages.pretrain import main

TINY = Pretrain(images=40, steps=5, batch_size=8, width=16, layers=1)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.fixture(scope="module", autouse=True)
def _few_held_out() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HELD_OUT", 12)
        patch.setattr(module, "CHECKPOINT_EVERY", 2)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "clip"
    pretrain(TINY, out)
    return out


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(0, 0, 40, build_tokenizer())


def digest(path: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(path.iterdir())}


def test_the_folder_is_complete_and_nothing_is_left_beside_it(folder: Path) -> None:
    expected = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "pretrain.json"}
    assert set(digest(folder)) == expected
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_an_interrupted_training_ends_in_the_same_bytes(folder: Path, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = module.batch

    def fail(settings: Pretrain, data: Pool, step: int) -> dict[str, torch.Tensor]:
        if step == stop:
            raise Killed
        return original(settings, data, step)

    monkeypatch.setattr(module, "batch", fail)
    with pytest.raises(Killed):
        pretrain(TINY, tmp_path / "clip")
    assert not (tmp_path / "clip").exists()
    assert (tmp_path / ".clip.checkpoint.safetensors").exists() == (stop >= 2)

    steps: list[int] = []
    monkeypatch.setattr(module, "batch", lambda settings, data, step: (steps.append(step), original(settings, data, step))[1])
    pretrain(TINY, tmp_path / "clip")
    assert steps == list(range(stop // 2 * 2, TINY.steps))
    assert digest(tmp_path / "clip") == digest(folder)
    assert not (tmp_path / ".clip.checkpoint.safetensors").exists()


def test_a_checkpoint_of_other_settings_is_not_continued(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = module.batch

    def fail(settings: Pretrain, data: Pool, step: int) -> dict[str, torch.Tensor]:
        if step == 3:
            raise Killed
        return original(settings, data, step)

    monkeypatch.setattr(module, "batch", fail)
    with pytest.raises(Killed):
        pretrain(dataclasses.replace(TINY, lr=0.1), tmp_path / "clip")
    monkeypatch.setattr(module, "batch", original)
    pretrain(TINY, tmp_path / "clip")
    assert digest(tmp_path / "clip") == digest(folder)


def test_another_seed_gives_another_model_and_global_randomness_is_untouched(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    pretrain(dataclasses.replace(TINY, seed=1), tmp_path / "clip")
    assert torch.equal(before, torch.get_rng_state())
    assert digest(tmp_path / "clip")["model.safetensors"] != digest(folder)["model.safetensors"]


def test_report(folder: Path) -> None:
    report = read_json(folder / "pretrain.json")
    assert report["steps"] == len(report["losses"]) == TINY.steps
    assert all(math.isfinite(loss) for loss in report["losses"])
    assert abs(report["losses"][0] - math.log(TINY.batch_size)) < 1
    assert set(report["held_out"]) == {"candidates", "image_to_text", "text_to_image", "faces"}
    assert report["held_out"]["candidates"] == 12


def test_auto_classes_give_the_features_of_the_parts(folder: Path) -> None:
    from transformers import AutoModel, AutoTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    again = AutoModel.from_pretrained(folder).eval()
    text = "the bus is so AWFUL today #monday #kitchen"
    ids = tokenizer(text, return_tensors="pt")
    assert tokenizer.convert_ids_to_tokens(ids["input_ids"][0].tolist()) == ["[BOS]", *text.lower().split(), "[EOS]"]
    assert build_tokenizer()(text)["input_ids"] == ids["input_ids"][0].tolist()
    picture = np.array(render.render(render.draw_scene(generator(0), 1, 0, render.POSTS)))
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(Image.fromarray(picture), return_tensors="pt")["pixel_values"]
    assert torch.allclose(pixels, to_pixels(picture[None]), atol=1e-6)
    with torch.no_grad():
        outputs = [m(**ids, pixel_values=pixels) for m in (model, again)]
    assert torch.equal(outputs[0].text_embeds, outputs[1].text_embeds)
    assert torch.equal(outputs[0].image_embeds, outputs[1].image_embeds)


def test_auto_image_processor_and_auto_processor_load_the_folder(folder: Path) -> None:
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder)
    picture = Image.new("RGB", (render.SIZE, render.SIZE), (255, 0, 127))
    pixels = torch.as_tensor(np.asarray(processor(picture, return_tensors="np")["pixel_values"][0]))
    assert pixels.shape == (3, render.SIZE, render.SIZE)
    assert torch.allclose(pixels[:, 0, 0], torch.tensor([1.0, -1.0, 127 / 127.5 - 1]), atol=1e-6)


def test_text_is_pooled_at_its_end_whatever_the_padding(folder: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    texts = ["a smiling face", "the bus is so awful today at the station #monday"]
    ids = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model.text_model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"])
        alone = model.text_model(**tokenizer(texts[0], return_tensors="pt"))
    for row in range(2):
        end = int(ids["attention_mask"][row].sum()) - 1
        assert ids["input_ids"][row, end] == tokenizer.eos_token_id == model.config.text_config.eos_token_id
        assert torch.equal(output.pooler_output[row], output.last_hidden_state[row, end])
    assert torch.allclose(output.pooler_output[0], alone.pooler_output[0], atol=1e-5)


def test_tokenizer_knows_every_word_masks_and_unknown_words() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer.eos_token_id != 2
    for index in range(100):
        item = captions.captioned(9, index)
        for text in [*item.captions, grammar.post(generator(9, index), 1, index % 3).text]:
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert len(ids) <= module.LENGTH
            assert len(ids) == 2 + len(re.findall(r"#?\w+|[^\w\s]", text))
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("[MASK] [MASK] zebra !").input_ids)
    assert tokens == ["[BOS]", "[MASK]", "[MASK]", "[UNK]", "[UNK]", "[EOS]"]


def test_batches_depend_on_the_step_alone_and_half_share_a_group(pool: Pool) -> None:
    first, again, other = (batch(TINY, pool, step) for step in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["pixel_values"], other["pixel_values"])
    assert first["pixel_values"].shape == (8, 3, 64, 64)
    assert first["input_ids"].shape == first["attention_mask"].shape
    group = np.arange(600) % 3
    for step in range(20):
        rows = module._rows(generator(0, step), group, 32)
        assert len(rows) == len(set(rows.tolist())) == 32
        assert np.bincount(group[rows]).max() >= 16


def test_small_groups_are_filled_up_from_everywhere() -> None:
    rows = module._rows(generator(0), np.arange(50), 20)
    assert len(set(rows.tolist())) == 20


def test_masks_spare_special_tokens_and_the_pool(pool: Pool) -> None:
    before = pool.ids.copy(), pool.pixels.copy()
    masked = 0
    for step in range(30):
        ids = batch(TINY, pool, step)["input_ids"]
        assert (ids[:, 0] == 3).all()
        assert ((ids == 4).sum(1) == 1).all()
        masked += int((ids == 2).sum())
    assert masked > 0
    assert np.array_equal(pool.ids, before[0])
    assert np.array_equal(pool.pixels, before[1])


def test_training_images_are_not_the_benchmarks() -> None:
    from causalroute.config import Planted
    from causalroute.data.planted import benchmark

    posts = {render.render(scene).tobytes() for _, scene in benchmark.posts(Planted(train=20, valid=5, test=5), "sarcasm")}
    assert not posts & {render.render(captions.captioned(0, index).scene).tobytes() for index in range(60)}


def test_learning_rate_rises_and_falls_to_nothing() -> None:
    rates = [rate(step, 100) for step in range(100)]
    assert rates[0] < rates[4]
    assert max(rates) <= 1
    assert rates[-1] < 0.01
    assert all(a >= b for a, b in itertools.pairwise(rates[5:]))


def test_it_learns(pool: Pool) -> None:
    settings = dataclasses.replace(TINY, lr=0.01)
    model = build_model(settings, len(build_tokenizer()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = model(**batch(settings, pool, 0), return_loss=True).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 96}, "image_size is 96"),
        ({"patch_size": 7}, "do not tile"),
        ({"width": 20}, "width is 20"),
        ({"images": 4}, "4 images do not fill a batch of 8"),
    ],
)
def test_wrong_settings_are_told(change: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        pretrain(dataclasses.replace(TINY, **change), tmp_path / "clip")


def test_stage_writes_where_the_layout_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = dataclasses.asdict(dataclasses.replace(TINY, steps=1))
    assert main(["--backbone", "small", "--config", json.dumps({"backbone": {"kind": "dual_encoder", "pretrain": section}})]) == 0
    assert read_json(tmp_path / "models" / "backbones" / "small" / "pretrain.json")["steps"] == 1


def test_stage_refuses_a_backbone_that_is_not_trained() -> None:
    with pytest.raises(UserError, match="is not trained by the pipeline"):
        main(["--backbone", "big", "--config", json.dumps({"backbone": {"kind": "dual_encoder", "model": "somewhere"}})])
