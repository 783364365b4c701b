"""The manifest: every post is there or in dropped.csv with its reason, and test labels are in test.parquet alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from causalroute import layout
from causalroute.config import Columns, Dataset, Source, Splits
from causalroute.data.manifest import CONTENT, TEST, prepare
from causalroute.data.records import REWRITES, TRUTH
from causalroute.errors import UserError
from causalroute.io import read_json
from causalroute.stages import prepare as prepare_stage


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = layout.raw("d")
    (folder / "i").mkdir(parents=True)
    return folder


def dataset(**settings: Any) -> Dataset:
    base = {"format": "table", "task": "classification", "classes": ("bad", "good"), "backbone": "x", "editor": "x", "methods": (), "table": "t.jsonl"}
    return Dataset(**(base | {"sources": (Source(kind="local", path="x"),), "columns": Columns(id="id", split="split", groups=("mood",))} | settings))


def picture(path: Path, seed: int) -> str:
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)).resize((64, 64)).save(path)
    return f"i/{path.name}"


def write(raw: Path, rows: list[dict[str, Any]]) -> None:
    (raw / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))


def posts(raw: Path, splits: str = "train train valid valid id id ood neutral") -> list[dict[str, Any]]:
    return [
        {
            "id": f"p{n}",
            "text": f"post number {n}",
            "image": picture(raw / "i" / f"{n}.png", n),
            "label": ("bad", "good")[n % 2],
            "split": split,
            "mood": "calm",
        }
        for n, split in enumerate(splits.split())
    ]


def test_written_files(raw: Path) -> None:
    rows = posts(raw, "ood id train valid train valid id neutral")
    write(raw, rows)
    prepare(dataset(), "d")
    manifest, tests = pl.read_parquet(layout.manifest("d")), pl.read_parquet(layout.test_labels("d"))
    assert manifest.columns == [*CONTENT, "group:mood"]
    assert manifest["id"].to_list() == ["p2", "p4", "p3", "p5", "p1", "p6", "p0", "p7"]
    assert manifest["label"].to_list() == [0, 0, 1, 1, None, None, None, None]
    assert manifest["group:mood"].null_count() == 4
    assert tests.rows() == [("p1", "id", 1, "calm"), ("p6", "id", 0, "calm"), ("p0", "ood", 0, "calm"), ("p7", "neutral", 1, "calm")]
    assert tests["label"].dtype == manifest["label"].dtype == pl.Int8
    assert manifest["text_sha256"][0] == hashlib.sha256(b"post number 2").hexdigest()
    assert manifest["image_sha256"][0] == hashlib.sha256((raw / "i/2.png").read_bytes()).hexdigest()
    assert pl.read_parquet(layout.truth("d")).schema == TRUTH
    assert pl.read_parquet(layout.rewrites("d")).schema == REWRITES
    summary = read_json(layout.summary("d"))
    assert summary["splits"]["train"] == {"items": 2, "labels": {"bad": 2, "good": 0}}
    assert summary["splits"]["id"] == {"items": 2}
    assert summary["visual"] == "image"
    assert summary["published_split"] is True
    assert layout.dropped("d").read_text() == "id,reason,where\n"


def test_test_labels_change_nothing_but_test_parquet(raw: Path) -> None:
    rows = posts(raw)
    rows[4]["text"] = rows[0]["text"]
    write(raw, rows)
    prepare(dataset(), "d")
    public = (layout.manifest, layout.summary, layout.dropped, layout.truth, layout.rewrites)
    before = [path("d").read_bytes() for path in public]
    write(raw, [row | ({"label": "good" if row["label"] == "bad" else "bad", "mood": "wild"} if row["split"] in TEST else {}) for row in rows])
    prepare(dataset(), "d")
    assert [path("d").read_bytes() for path in public] == before


def test_every_fault_has_its_reason_and_line(raw: Path, tmp_path: Path) -> None:
    rows = posts(raw, " ".join(["train"] * 12 + ["valid"] * 4 + ["id"] * 4))
    (tmp_path / "secret.png").write_bytes((raw / "i/0.png").read_bytes())
    (raw / "i/text.png").write_text("no image")
    (raw / "i/cut.png").write_bytes((raw / "i/0.png").read_bytes()[:300])
    faults: list[tuple[dict[str, Any], str]] = [
        ({"id": "p0"}, "duplicate_id"),
        ({"id": " "}, "no_id"),
        ({"label": "goood"}, "unknown_label"),
        ({"split": "trian"}, "unknown_split"),
        ({"image": "i/none.png"}, "missing_image"),
        ({"image": "../../../secret.png"}, "path_outside_root"),
        ({"image": "i/text.png"}, "not_an_image"),
        ({"image": "i/cut.png"}, "corrupt_image"),
        ({"image": "", "text": " "}, "no_content"),
    ]
    write(raw, rows + [rows[0] | {"id": f"bad{n}"} | fault for n, (fault, _) in enumerate(faults)])
    prepare(dataset(), "d")
    dropped = pl.read_csv(layout.dropped("d"))
    assert dropped.columns == ["id", "reason", "where"]
    found = {int(where.split("line ")[1].split(":")[0]) - 21: reason for reason, where in dropped.select("reason", "where").iter_rows()}
    assert found == {n: reason for n, (_, reason) in enumerate(faults)}
    assert "did you mean 'good'" in dropped.filter(reason="unknown_label")["where"][0]
    assert "did you mean 'train'" in dropped.filter(reason="unknown_split")["where"][0]
    assert pl.read_parquet(layout.manifest("d")).height == 20
    assert read_json(layout.summary("d"))["dropped"] == {reason: 1 for _, reason in faults}


def test_most_labels_unknown(raw: Path) -> None:
    write(raw, [row | {"label": "negative" if n else "bad"} for n, row in enumerate(posts(raw))])
    with pytest.raises(UserError, match="7 of 8 posts are unusable for one reason: unknown_label") as failure:
        prepare(dataset(), "d")
    assert "label_map" in failure.value.fix
    assert "line 2" in failure.value.where
    assert not layout.manifest("d").exists()
    prepare(dataset(label_map={"negative": "good"}), "d")


def test_counts_and_empty_splits(raw: Path) -> None:
    rows = posts(raw)
    write(raw, rows)
    with pytest.raises(UserError, match="train: 2 instead of 3; valid: 2 instead of 5") as failure:
        prepare(dataset(expected={"train": 3, "valid": 5, "id": 2}), "d")
    assert "dropped: none" in failure.value.where
    write(raw, [row for row in rows if row["split"] != "valid"])
    with pytest.raises(UserError, match="split 'valid' is empty"):
        prepare(dataset(), "d")
    write(raw, [])
    with pytest.raises(UserError):
        prepare(dataset(), "d")
    with pytest.raises(UserError, match="no raw files"):
        prepare(dataset(), "other")


def test_leaks_of_a_published_split(raw: Path) -> None:
    rows = posts(raw, "train train train valid id id id id")
    rows[4]["text"] = rows[0]["text"].upper() + " http://t.co/1"
    rows[1]["text"] = "one two three four five six seven eight nine ten eleven"
    rows[5]["text"] = rows[1]["text"] + " twelve"
    rows[6]["image"] = rows[2]["image"]
    picture(raw / "i" / "7.png", 3)
    Image.open(raw / "i" / "3.png").save(raw / "i" / "7.jpg", quality=95)
    rows[7]["image"] = "i/7.jpg"
    rows[2]["text"], rows[2]["label"], rows[3]["label"] = rows[3]["text"], "bad", "good"
    write(raw, rows)
    prepare(dataset(), "d")
    summary = read_json(layout.summary("d"))
    assert summary["leaked"] == {"exact_text": ["p4"], "near_text": ["p5"], "exact_image": ["p6"], "near_image": ["p7"]}
    assert summary["leaks"] == {
        **{"exact_text": 1, "near_text": 1, "exact_image": 1, "near_image": 1, "conflicts_text": 2, "conflicts_image": 0},
        **{"exact_text_train": 1, "near_text_train": 1, "exact_image_train": 1, "near_image_train": 0},
    }


def test_made_splits_are_crossed_by_no_duplicate(raw: Path) -> None:
    rows = posts(raw, " ".join(["train"] * 40))
    for n in range(0, 40, 4):
        rows[n + 1]["text"], rows[n + 2]["image"] = rows[n]["text"], rows[n]["image"]
    write(raw, rows)
    settings = dataset(columns=Columns(id="id"), splits=Splits(valid=0.2, test=0.2))
    prepare(settings, "d")
    summary, manifest = read_json(layout.summary("d")), pl.read_parquet(layout.manifest("d"))
    assert summary["published_split"] is False
    assert not any(summary["leaks"][key] for key in ("exact_text", "near_text", "exact_image", "near_image"))
    assert set(manifest["split"]) == {"train", "valid", "id"}
    first = layout.manifest("d").read_bytes()
    prepare(settings, "d")
    assert layout.manifest("d").read_bytes() == first
    prepare(dataset(columns=Columns(id="id"), splits=Splits(valid=0.2, test=0.2, seed=1)), "d")
    assert layout.manifest("d").read_bytes() != first


def test_text_alone_and_stage(raw: Path) -> None:
    write(raw, [{key: row[key] for key in ("id", "text", "label", "split")} for row in posts(raw)])
    section = {"format": "table", "task": "classification", "classes": ["bad", "good"], "backbone": "x", "editor": "x", "methods": [], "table": "t.jsonl"}
    section |= {"sources": [{"kind": "local", "path": "x"}], "columns": {"id": "id", "split": "split", "image": ""}}
    assert prepare_stage.main(["--dataset", "d", "--config", json.dumps({"dataset": section})]) == 0
    summary = read_json(layout.summary("d"))
    assert summary["visual"] == "none"
    assert summary["leaks"]["exact_image"] is None
    assert list(summary["splits"]) == ["id", "neutral", "ood", "train", "valid"]


POLARITY = ("negative", "neutral", "positive")


@pytest.mark.slow
def test_mvsa_single_facts(raw: Path, shared: Path) -> None:
    (raw / "i").rmdir()
    raw.rmdir()
    raw.symlink_to(shared / "data" / "mvsa_single")
    expected = {"train": 3611, "valid": 450, "id": 450}
    prepare(dataset(format="mvsa", variant="single", task="sentiment", classes=POLARITY, table="", expected=expected), "d")
    leaks = read_json(layout.summary("d"))["leaks"]
    assert leaks["exact_image_train"] == 8
    assert leaks["exact_text_train"] == 40


@pytest.mark.slow
def test_mvsa_single_has_54_copied_images(shared: Path) -> None:
    hashes = [hashlib.sha256(path.read_bytes()).digest() for path in (shared / "data/mvsa_single/data").glob("*.jpg")]
    assert len(hashes) - len(set(hashes)) == 54
