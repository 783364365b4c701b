"""Encoding: parity with one call per input, the same bytes whatever was stored before, each input once, resume after a crash."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.unit import tiny_models as tiny

from causalroute.config import Backbone as Settings
from causalroute.counterfactual.views import TextInput
from causalroute.errors import UserError
from causalroute.features import tower_passes as module
from causalroute.features.backbone import Backbone, load_backbone
from causalroute.features.encode import encode, encode_views
from causalroute.features.encoding import Encoding
from causalroute.features.inputs import Input
from causalroute.features.store import Store
from causalroute.features.threads import ordered_map


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tiny.save_clip(tmp_path_factory.mktemp("clip"))
    return load_backbone(Settings(kind="dual_encoder", model=str(folder), batch_size=4), "tiny")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    tiny.pictures(root, 22)
    return root


def texts(count: int) -> list[Input]:
    return [TextInput(text) for text in tiny.sentences(count)]


@dataclasses.dataclass(frozen=True)
class Photo:
    """A file without edits."""

    path: str

    def content_key(self) -> str:
        return self.path

    def load(self, root: Path) -> Image.Image:
        with Image.open(root / self.path) as image:
            return image.convert("RGB")

    def neighbour(self) -> str:
        return ""


def images(count: int) -> list[Input]:
    return [Photo(f"{number}.png") for number in range(count)]


class Counting:
    """Counts the rows that reach the forward pass of a backbone."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone, self.rows, self.lock = backbone, 0, threading.Lock()

    def __getattr__(self, name: str) -> object:
        return getattr(self.backbone, name)

    def text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with self.lock:
            self.rows += len({tuple(row) for row in ids.tolist()})
        return self.backbone.text_features(ids, mask)


@torch.no_grad()
def naive(backbone: Backbone, inputs: Sequence[Input], root: Path) -> torch.Tensor:
    rows = []
    for item in inputs:
        if isinstance(item, TextInput):
            rows.append(backbone.encode_texts(*backbone.collate([backbone.tokenize(item.text)])))
        else:
            rows.append(backbone.encode_images(backbone.preprocess(item.load(root))[None]))  # type: ignore[union-attr]
    return torch.cat(rows)


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_give_what_one_call_per_input_gives(clip: Backbone, photos: Path, tmp_path: Path, threads: int) -> None:
    for inputs in (texts(30), images(22)):
        result = encode_views(clip, inputs, photos, Store(tmp_path, clip.key), threads)
        assert result.dtype == torch.float16
        torch.testing.assert_close(result.float(), naive(clip, inputs, photos), atol=3e-3, rtol=3e-3)


@pytest.mark.parametrize("make", [texts, images])
def test_same_bytes_in_any_order_and_from_a_half_filled_store(clip: Backbone, photos: Path, tmp_path: Path, make: object) -> None:
    inputs: list[Input] = make(22)  # type: ignore[operator]
    reference = encode_views(clip, inputs, photos, Store(tmp_path / "whole", clip.key))
    for trial in range(4):
        order = random.Random(trial).sample(range(22), 22)
        store = Store(tmp_path / str(trial), clip.key)
        encode_views(clip, [inputs[place] for place in order[: 5 * trial]], photos, store)
        shuffled = encode_views(clip, [inputs[place] for place in order], photos, store, 1 + trial % 2)
        assert torch.equal(shuffled, reference[order])


def test_each_input_is_encoded_once_and_added_rows_alone_later(clip: Backbone, tmp_path: Path) -> None:
    counting = Counting(clip)
    inputs = texts(10) * 3
    result = encode_views(counting, inputs, tmp_path, Store(tmp_path, clip.key))
    assert counting.rows == 10
    assert torch.equal(result[:10], result[10:20])
    encode_views(counting, inputs, tmp_path, Store(tmp_path, clip.key))
    assert counting.rows == 10
    more = encode_views(counting, texts(13), tmp_path, Store(tmp_path, clip.key))
    assert counting.rows == 13
    assert torch.equal(more[:10], result[:10])


class Crash(Exception):
    """Stands for a killed run."""


def test_a_killed_run_resumes_after_its_last_shard(clip: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD", 8)
    inputs = texts(40)
    reference = encode_views(clip, inputs, tmp_path, Store(tmp_path / "calm", clip.key))
    store = Store(tmp_path / "crashed", clip.key)
    add = store.add

    def add_twice(*args: object) -> None:
        if len(store.shards) == 2:
            raise Crash
        add(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "add", add_twice)
    with pytest.raises(Crash):
        encode_views(clip, inputs, tmp_path, store)
    counting = Counting(clip)
    result = encode_views(counting, inputs, tmp_path, Store(tmp_path / "crashed", clip.key))
    done = sum(1 for path in (tmp_path / "crashed" / clip.key).iterdir() if path.suffix == ".safetensors")
    assert done > 2
    assert counting.rows <= 40 - 16
    assert torch.equal(result, reference)


def test_a_damaged_shard_is_encoded_again(clip: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = texts(6)
    reference = encode_views(clip, inputs, tmp_path, Store(tmp_path, clip.key))
    [path] = (tmp_path / clip.key).iterdir()
    path.write_bytes(path.read_bytes()[:-2] + b"\x01\x02")
    assert torch.equal(encode_views(clip, inputs, tmp_path, Store(tmp_path, clip.key)), reference)
    assert "encoded again" in capsys.readouterr().err


def test_token_features_are_masked_and_agree_with_one_call(clip: Backbone, photos: Path, tmp_path: Path) -> None:
    inputs = texts(9)
    job = Encoding(clip, Store(tmp_path, clip.key), photos, tokens=True)
    digests = encode(job, inputs)
    tokens, lengths = job.store.tokens(digests), job.store.lengths(digests)
    for item, row, length in zip(inputs, tokens.split(lengths.tolist()), lengths.tolist(), strict=True):
        encoded = clip.tokenize(item.text)  # type: ignore[union-attr]
        assert length == len(encoded.ids)
        with torch.no_grad():
            plain = clip.text_features(*clip.collate([encoded]))[1][0, :length]
        torch.testing.assert_close(row.float(), plain, atol=3e-3, rtol=3e-3)
    assert torch.equal(job.store.pooled(digests), encode_views(clip, inputs, photos, Store(tmp_path / "pooled", clip.key)))
    pictures = encode(job, images(3))
    assert job.store.tokens(pictures).shape == (3 * 16, 16)


def test_a_broken_image_ends_the_run_with_its_name(clip: Backbone, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"99\.png"):
        encode_views(clip, [*images(9), Photo("99.png")], photos, Store(tmp_path, clip.key), 2)


def test_images_without_an_image_model_are_refused(photos: Path, tmp_path: Path) -> None:
    folder = tiny.save_bert(tmp_path / "bert")
    backbone = load_backbone(Settings(kind="encoder_pair", text_model=str(folder)), "text_only")
    with pytest.raises(UserError, match="no image model"):
        encode_views(backbone, images(1), photos, Store(tmp_path, backbone.key))


def test_features_that_overflow_half_precision_are_refused(clip: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "text_features", lambda ids, mask: (torch.full((len(ids), 2), 1e6), ids))
    with pytest.raises(UserError, match="not finite"):
        encode_views(clip, texts(1), tmp_path, Store(tmp_path, clip.key))


def test_batches_under_way_are_bounded() -> None:
    taken: list[int] = []

    def items() -> object:
        for number in range(20):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        for done, result in enumerate(ordered_map(pool, lambda number: number * number, items(), 3)):  # type: ignore[arg-type]
            assert result == done * done
            time.sleep(0.001)
            assert len(taken) <= done + 5
