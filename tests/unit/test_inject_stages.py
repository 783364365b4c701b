"""Injected posts from the raw table to graded counterfactuals, on generated posts: with images, and with attribute words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from causalroute import layout, plan
from causalroute.audit import audit
from causalroute.config import Audit, Columns, Config, Dataset, Editor, Inject, Source, parse
from causalroute.counterfactual.build import build, reference_of
from causalroute.counterfactual.grade import grade
from causalroute.counterfactual.pixels import GREY, unpack_mask
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.views import view_inputs
from causalroute.data import overlays
from causalroute.data.images import open_image
from causalroute.data.manifest import CONTENT, TEST, prepare
from causalroute.errors import UserError
from causalroute.io import canonical_json, read_json
from causalroute.stages import counterfactuals as counterfactuals_stage
from causalroute.stages import grade as grade_stage
from causalroute.stages import prepare as prepare_stage

SPLITS = ("train",) * 6 + ("valid", "id", "ood", "train")
POSTS = 300


def dataset(**settings: Any) -> Dataset:
    base = {"format": "table", "task": "classification", "classes": ("bad", "good"), "backbone": "x", "editor": "x", "methods": (), "table": "t.jsonl"}
    base |= {"sources": (Source(kind="local", path="x"),), "columns": Columns(id="id", split="split", groups=("mood",)), "inject": Inject()}
    return Dataset(**(base | settings))  # type: ignore[arg-type]


def write(raw: Path, count: int = POSTS) -> None:
    """Posts whose text and image say nothing about the label; every fifteenth has no image."""
    random = np.random.default_rng(0)
    (raw / "i").mkdir(parents=True, exist_ok=True)
    rows = []
    for n in range(count):
        size = (48, 32) if n % 3 else (32, 40)
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(raw / f"i/{n}.png")
        image = f"i/{n}.png" if n % 15 else None
        words = " ".join(random.choice(["bus", "tree", "road", "cup", "lamp"], 3).tolist())
        rows.append({"id": f"p{n}", "text": f"{words} {n}", "image": image, "label": ("bad", "good")[n // 10 % 2], "split": SPLITS[n % 10], "mood": "calm"})
    (raw / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def posts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[pl.DataFrame, pl.DataFrame]:
    monkeypatch.chdir(tmp_path)
    write(layout.raw("d"))
    prepare(dataset(), "d")
    return pl.read_parquet(layout.manifest("d")), pl.read_parquet(layout.truth("d"))


def test_files_of_prepare(posts: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    manifest, truth = posts
    assert manifest.columns == [*CONTENT, "overlay", "group:mood"]
    hidden = manifest["split"].is_in(TEST)
    assert manifest.filter(hidden)["label"].null_count() == manifest.filter(hidden)["group:mood"].null_count() == 120
    assert manifest.filter(~hidden)["label"].null_count() == 0
    tests = pl.read_parquet(layout.test_labels("d"))
    assert tests["split"].value_counts().sort("split").rows() == [("clean", 30), ("id", 30), ("neutral", 30), ("ood", 30)]
    assert truth["id"].to_list() == manifest["id"].to_list()
    assert sorted(pl.read_csv(layout.dropped("d"))["reason"].unique()) == ["replaced_split"]
    summary = read_json(layout.summary("d"))
    assert summary["dropped"] == {"replaced_split": 30}
    assert summary["injected"]["mark"] == "corner"
    assert summary["splits"]["clean"] == {"items": 30}
    assert list(layout.raw("d").rglob("*.png")) == list((layout.raw("d") / "i").glob("*.png")), "no image is written"
    files = [path("d").read_bytes() for path in (layout.manifest, layout.truth, layout.test_labels, layout.summary)]
    prepare(dataset(), "d")
    assert [path("d").read_bytes() for path in (layout.manifest, layout.truth, layout.test_labels, layout.summary)] == files


def test_expected_counts_are_those_of_all_splits(posts: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    prepare(dataset(expected={"train": 210, "ood": 30, "clean": 30, "oracle_valid": 30}), "d")
    with pytest.raises(UserError, match="clean: 30 instead of 31"):
        prepare(dataset(expected={"clean": 31}), "d")


@pytest.mark.parametrize("mark", ["border", "corner", "tint"])
def test_true_swaps_are_the_photo_under_the_other_mark(posts: tuple[pl.DataFrame, pl.DataFrame], mark: str) -> None:
    root = layout.raw("d")
    prepare(dataset(inject=Inject(mark=mark)), "d")  # type: ignore[arg-type]
    manifest, truth = pl.read_parquet(layout.manifest("d")), pl.read_parquet(layout.truth("d"))
    table = build(manifest, Editor(text="truth", image="truth", swaps=2), Sources(root, truth))
    reference_of(manifest, root).save(root.parent / "reference.png")
    views = {view: view_inputs(manifest, table, view, root.parent / "reference.png") for view in ("v_s", "v_c", "v_swap")}
    shown = dict(zip(manifest["id"], manifest.select("image", "overlay").iter_rows(), strict=True))
    for row, name, donors in zip(range(0, table.height, 7), table["id"][::7], table["v_donor"].to_list()[::7], strict=True):
        path, own = shown[name]
        if path is None:
            assert not table["image_ok"][row]
            continue
        assert table["image_ok"][row]
        assert views["v_c"][row].load(root).tobytes() == open_image(root, path).tobytes()  # type: ignore[union-attr]
        alone = overlays.draw(Image.new("RGB", (128, 128), GREY), own or "")
        assert views["v_s"][row].load(root).tobytes() == alone.tobytes()  # type: ignore[union-attr]
        for k, donor in enumerate(donors):
            assert shown[donor][1] not in (own, None)
            wanted = open_image(root, path, overlay=shown[donor][1])
            assert views["v_swap"][2 * row + k].load(root).tobytes() == wanted.tobytes()  # type: ignore[union-attr]
    grades = grade(table, manifest, truth)
    assert grades["image"]["failed"] == grades["text"]["failed"] == grades["image"]["same_background"] == 0
    assert grades["text"]["recall"] == 1


def test_the_editor_of_a_user_finds_the_marks(posts: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    manifest, truth = posts
    root = layout.raw("d")
    table = build(manifest, Editor(text="lexicon", image="places", swaps=1), Sources(root))
    has = table["mask"].is_not_null()
    assert (unpack_mask(table.filter(has)["mask"][0], 32) == ~overlays.region("corner")).all()
    assert table.filter(has)["level"].unique().to_list() == ["exact"]
    grades = grade(table, manifest, truth)
    assert grades["text"]["recall"] == 1
    assert grades["text"]["failed"] < 0.05
    assert grades["image"]["background_kept"] == 0
    assert grades["image"]["failed"] < 0.05, "a donor with another class's background colours is preferred"
    centre = grade(build(manifest, Editor(text="random", image="centre", core_share=0.85, swaps=1), Sources(root)), manifest, truth)
    assert centre["image"]["background_kept"] > 0.25
    assert centre["text"]["recall"] < 0.9


def test_the_audit_sees_the_injected_cues(posts: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    found = audit(posts[0], read_json(layout.summary("d")), Audit(min_count=10), layout.raw("d"))
    names = {cue["cue"] for cue in found["shortcuts"]}
    assert set(read_json(layout.summary("d"))["injected"]["hashtags"]) <= names
    assert {"warmth", "greenness"} & names


def attribute_folder(raw: Path) -> Dataset:
    """A small MMSD: attribute words instead of images."""
    (raw / "mmsd/text_json_clean").mkdir(parents=True)
    random = np.random.default_rng(1)
    number = 0
    for file, count in (("train", 160), ("valid", 40), ("test", 40)):
        rows = []
        for _ in range(count):
            number += 1
            rows.append({"image_id": number, "text": f"so # fun {random.choice(['bus', 'tree', 'cup'])} {number} . ", "label": number % 2})
        (raw / f"mmsd/text_json_clean/{file}.json").write_text(json.dumps(rows))
    words = [["tree", "sky", "man", "dog"][n // 2 % 3 :] for n in range(number + 1)]
    (raw / "mmsd/extract_all").write_text("\n".join(str([str(n), *words[n]]) for n in range(1, number + 1)))
    (raw / "dmsd_cl").mkdir()
    (raw / "dmsd_cl/opposite.txt").write_text("[1,other words,0]\n")
    (raw / "dmsd_cl/ood_all.txt").write_text("[201,other words,0]\n")
    return dataset(format="mmsd", variant="mmsd", task="sarcasm", classes=("literal", "sarcastic"), positive="sarcastic", inject=Inject(rho_image=0.85))


def test_attribute_words_through_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = dataclasses.asdict(attribute_folder(layout.raw("d"))) | {"backbone": "b", "editor": "mine", "methods": ["erm"]}
    editors = {"truth": {"text": "truth", "image": "truth", "swaps": 1}, "mine": {"text": "lexicon", "image": "places", "swaps": 1, "z": 1.0}}
    values = {"run": ["d"], "datasets": {"d": chosen}, "editors": editors, "backbones": {"b": {"kind": "encoder_pair", "text_model": "none"}}}
    config = parse(Config, canonical_json(values | {"methods": {"erm": {}}}))
    prepare_stage.main(["--dataset", "d", "--config", plan.stage_config(config, "prepare", dataset="d")])
    manifest = pl.read_parquet(layout.manifest("d"))
    assert pl.read_parquet(layout.rewrites("d")).height == 0, "a published rewrite bears no cue"
    assert read_json(layout.summary("d"))["dropped"] == {"replaced_split": 1}
    for editor in editors:
        section = plan.stage_config(config, "counterfactuals", dataset="d", editor=editor, backbone="b")
        counterfactuals_stage.main(["--dataset", "d", "--editor", editor, "--backbone", "b", "--config", section])
    grade_stage.main(["--dataset", "d", "--config", plan.stage_config(config, "grade", dataset="d")])
    grades = read_json(layout.reports("d") / "counterfactuals.json")["editors"]
    assert grades["truth"]["text"]["failed"] == grades["truth"]["image"]["failed"] == 0
    assert grades["mine"]["image"]["failed"] < 0.1
    assert grades["mine"]["text"]["recall"] == grades["truth"]["text"]["recall"] == 1
    words = read_json(layout.summary("d"))["injected"]["attribute_words"]
    table = pl.read_parquet(layout.counterfactuals("d", "truth"))
    bare = {name: text for name, text in manifest.select("id", "attributes").iter_rows() if name.endswith("~clean")}
    for name, core, (swap,) in table.filter(pl.col("id").is_in([name.removesuffix("~clean") for name in bare])).select("id", "attr_c", "attr_swap").iter_rows():
        assert core == f"[MASK] {bare[f'{name}~clean']}"
        assert swap in {f"{word} {bare[f'{name}~clean']}" for word in words}
