"""The stages features and tokens: both files of a data set, the same bytes twice, what they refuse."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
import torch
from PIL import Image
from tests.unit import tiny_models as tiny

from causalroute import layout
from causalroute.errors import UserError
from causalroute.io import ids_digest, read_tensors, sha256_bytes, sha256_file
from causalroute.stages import features, tokens


def manifest(root: Path, count: int, *, visual: str) -> pl.DataFrame:
    names = tiny.pictures(root, count) if visual == "image" else [None] * count
    rows = {
        "id": [f"post{number}" for number in range(count)],
        "split": ["train"] * count,
        "text": tiny.sentences(count),
        "image": names,
        "attributes": ["sun rain", None, "coffee"][:count] + ["sun"] * (count - 3) if visual == "attributes" else [None] * count,
        "image_sha256": [sha256_file(root / name) if name else None for name in names],
    }
    return pl.DataFrame(rows, schema_overrides=dict.fromkeys(rows, pl.String))


def edits(posts: pl.DataFrame, *, image: bool, level: str = "pixels") -> pl.DataFrame:
    mask = hashlib.sha256(b"mask").digest()[:8]
    ids = posts["id"][1:].to_list()
    columns = {"t_s": ["the [MASK]"], "t_c": ["[MASK] sun"], "t_swap": [["a sun", "a rain"]]}
    columns |= {"v_donor": [["post1", "post2"]], "mask": [mask], "mask_side": [8], "fill": ["mean"], "level": [level]} if image else {}
    columns |= {"attr_s": [""], "attr_c": ["sun"], "attr_swap": [["rain", "coffee"]]}
    return pl.DataFrame({"id": ids, **{name: value * len(ids) for name, value in columns.items()}})


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    layout.raw("mine").mkdir(parents=True)
    layout.counterfactuals("mine", "own").parent.mkdir(parents=True)
    return tmp_path


def call(folder: Path, kind: str, views: str, *, stage: ModuleType = features, threads: str = "1") -> int:
    model = {"model": str(folder)} if kind == "dual_encoder" else {"text_model": str(folder)}
    config = json.dumps({"dataset": {}, "backbone": {"kind": kind, **model, "batch_size": 4}})
    return stage.main(["--dataset", "mine", "--backbone", "tiny", "--views", views, "--threads", threads, "--config", config])


def test_the_stage_writes_both_files_of_an_image_dataset(checkout: Path) -> None:
    folder = tiny.save_clip(checkout / "clip")
    posts = manifest(layout.raw("mine"), 5, visual="image")
    posts.write_parquet(layout.manifest("mine"))
    edits(posts, image=True).write_parquet(layout.counterfactuals("mine", "own"))
    Image.new("RGB", (32, 32), (90, 90, 90)).save(layout.reference_image("mine"))
    assert call(folder, "dual_encoder", "factual") == 0
    assert call(folder, "dual_encoder", "own") == 0
    factual, metadata = read_tensors(layout.features("mine", "tiny", "factual"))
    assert {name: tuple(value.shape) for name, value in factual.items()} == {"t": (5, 48), "v": (5, 32)}
    assert metadata["ids_sha256"] == sha256_bytes(*(name.encode() for name in posts["id"]))
    assert (metadata["text_dim"], metadata["image_dim"], len(metadata["backbone_key"])) == ("48", "32", 64)
    edited, _ = read_tensors(layout.features("mine", "tiny", "own"))
    shapes = {name: tuple(value.shape) for name, value in edited.items()}
    pair = {"t_s": (4, 48), "t_c": (4, 48), "v_s": (4, 32), "v_c": (4, 32), "t_0": (1, 48), "v_0": (1, 32)}
    assert shapes == {"rows": (4,), **pair, "t_swap": (4, 2, 48), "v_swap": (4, 2, 32)}
    assert edited["rows"].tolist() == [1, 2, 3, 4]
    assert not torch.equal(edited["v_s"], edited["v_c"])
    assert not torch.equal(edited["t_swap"][:, 0], edited["t_swap"][:, 1])


def test_the_tokens_of_every_view_are_those_of_its_input(checkout: Path) -> None:
    folder = tiny.save_clip(checkout / "clip")
    posts = manifest(layout.raw("mine"), 5, visual="image")
    posts.write_parquet(layout.manifest("mine"))
    edits(posts, image=True).write_parquet(layout.counterfactuals("mine", "own"))
    Image.new("RGB", (32, 32), (90, 90, 90)).save(layout.reference_image("mine"))
    for views in ("factual", "own"):
        assert call(folder, "dual_encoder", views) == call(folder, "dual_encoder", views, stage=tokens) == 0
    whole = read_tensors(layout.features("mine", "tiny", "factual"))[0] | read_tensors(layout.features("mine", "tiny", "own"))[0]
    factual, metadata = read_tensors(layout.tokens("mine", "tiny", "factual"))
    assert factual["v"].shape == (5 * 16, 16)
    assert factual["t_lengths"].tolist() == [len(text.split()) + 2 for text in posts["text"]]
    assert len(factual["t"]) == sum(factual["t_lengths"].tolist())
    assert metadata["ids_sha256"] == ids_digest(posts["id"].to_list())
    edited, _ = read_tensors(layout.tokens("mine", "tiny", "own"))
    shapes = {"t_s": (4,), "t_c": (4,), "t_swap": (4, 2), "v_s": (4,), "v_c": (4,), "v_swap": (4, 2)}
    assert edited.keys() == {"rows", *shapes, *(f"{view}_lengths" for view in shapes)}
    assert {view: tuple(edited[f"{view}_lengths"].shape) for view in shapes} == shapes
    for view, x in (factual | edited).items():
        if view.startswith("v") and not view.endswith("_lengths"):  # the last part of a pooled image is its mean patch
            torch.testing.assert_close(x.view(-1, 16, 16).float().mean(1), whole[view][..., 16:].reshape(-1, 16).float(), atol=2e-3, rtol=2e-3)
    first = layout.tokens("mine", "tiny", "own").read_bytes()
    call(folder, "dual_encoder", "own", stage=tokens, threads="2")
    assert layout.tokens("mine", "tiny", "own").read_bytes() == first


def test_the_stage_reads_attribute_words_with_the_text_model(checkout: Path) -> None:
    folder = tiny.save_bert(checkout / "bert")
    posts = manifest(layout.raw("mine"), 4, visual="attributes")
    posts.write_parquet(layout.manifest("mine"))
    edits(posts, image=False).write_parquet(layout.counterfactuals("mine", "own"))
    assert call(folder, "encoder_pair", "factual", threads="2") == 0
    assert call(folder, "encoder_pair", "own") == 0
    factual, _ = read_tensors(layout.features("mine", "tiny", "factual"))
    edited, _ = read_tensors(layout.features("mine", "tiny", "own"))
    assert factual["v"].shape == factual["t"].shape == (4, 16)
    assert torch.equal(factual["v"][1], edited["v_0"][0])  # no attribute words: the empty text
    assert edited["v_swap"].shape == (3, 2, 16)


def test_the_stage_twice_gives_the_same_bytes(checkout: Path) -> None:
    folder = tiny.save_bert(checkout / "bert")
    manifest(layout.raw("mine"), 4, visual="attributes").write_parquet(layout.manifest("mine"))
    contents = []
    for threads in ("1", "2"):
        call(folder, "encoder_pair", "factual", threads=threads)
        contents.append(layout.features("mine", "tiny", "factual").read_bytes())
    assert contents[0] == contents[1]


def test_the_stage_tells_what_is_missing(checkout: Path) -> None:
    folder = tiny.save_bert(checkout / "bert")
    with pytest.raises(UserError, match=r"manifest\.parquet is missing"):
        call(folder, "encoder_pair", "factual")
    with pytest.raises(SystemExit):
        call(folder, "encoder_pair", "factual", threads="0")
