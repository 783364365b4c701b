"""A stranger's table through the real stages: what works, and what each mistake is answered with."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from causalroute import layout
from causalroute.audit import audit
from causalroute.config import Audit, Dataset, Editor, parse
from causalroute.counterfactual.build import COLUMNS, build, reference_of
from causalroute.counterfactual.sources import Sources
from causalroute.errors import UserError
from causalroute.io import canonical_json, read_json
from causalroute.stages import _cli, fetch, prepare

HEAD = ["caption", "file", "mood", "country"]
ENTRY: dict[str, Any] = {
    **{"format": "table", "task": "classification", "classes": ["negative", "positive"], "backbone": "b", "editor": "e", "methods": ["erm"]},
    **{"sources": [{"kind": "local", "path": "my_folder"}], "table": "posts.csv", "label_map": {"pos": "positive"}},
    "columns": {"text": "caption", "image": "file", "label": "mood", "groups": ["country"]},
}
Rows = list[list[str]]


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_folder" / "images").mkdir(parents=True)
    return tmp_path


def posts(count: int = 40) -> Rows:
    """Posts of two classes; every eighth has no image."""
    rows = []
    for n in range(count):
        name = f"images/{n}.png" if n % 8 else ""
        if name:
            Image.fromarray(np.random.default_rng(n).integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(Path("my_folder", name))
        words = "lovely day" if n % 2 else "sad day"
        rows.append([f"{words} at stop {n} {'#sun' if n % 2 else '#rain'}", name, "pos" if n % 2 else "negative", "DE" if n % 3 else "FR"])
    return rows


def save(rows: Rows, head: list[str] = HEAD, name: str = "posts.csv") -> None:
    path = Path("my_folder", name)
    records = [dict(zip(head, row, strict=True)) for row in rows]
    if path.suffix == ".parquet":
        pl.DataFrame(records).write_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, records)))
    else:
        with path.open("w", newline="") as stream:
            csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([head, *rows])


def run(**changes: Any) -> dict[str, Any]:
    """Fetches and prepares through the stages; returns summary.json."""
    config = json.dumps({"dataset": ENTRY | changes})
    for stage in (fetch, prepare):
        assert stage.main(["--dataset", "mine", "--config", config]) == 0
    summary: dict[str, Any] = read_json(layout.summary("mine"))
    return summary


def columns(**changes: str) -> dict[str, Any]:
    return {"columns": ENTRY["columns"] | changes}


@pytest.mark.parametrize("name", ["posts.csv", "posts.tsv", "posts.jsonl", "posts.parquet"])
def test_posts_without_image_are_kept_and_counted(name: str) -> None:
    save(posts(), name=name)
    summary = run(table=name)
    assert summary["visual"] == "image"
    assert summary["without_image"] == 5
    assert summary["dropped"] == {}
    manifest = pl.read_parquet(layout.manifest("mine"))
    assert manifest.height == 40
    assert manifest.filter(pl.col("image").is_null())["image_sha256"].null_count() == 5
    assert set(manifest.filter(split="train")["group:country"]) == {"DE", "FR"}


def test_a_table_without_images_is_text_alone() -> None:
    save([[row[0], row[2], row[3]] for row in posts()], ["caption", "mood", "country"])
    summary = run(**columns(image=""))
    assert summary["visual"] == "none"
    assert summary["without_image"] == 0


def test_methods_that_look_at_images_alone_are_refused_without_images() -> None:
    with pytest.raises(UserError, match=r"'image_only'.*need images.*columns\.image is empty"):
        parse(Dataset, canonical_json(ENTRY | columns(image="") | {"methods": ["erm", "image_only"]}))


def test_an_editor_passes_over_posts_without_image() -> None:
    save(posts())
    run()
    manifest = pl.read_parquet(layout.manifest("mine"))
    table = build(manifest, Editor(text="lexicon", image="random", z=1.0), Sources(layout.raw("mine")))
    assert table.schema == pl.Schema(COLUMNS)
    assert table["id"].to_list() == manifest["id"].to_list()
    bare = set(manifest.filter(pl.col("image").is_null())["id"])
    for row in table.iter_rows(named=True):
        assert (row["mask"] is None) == (row["id"] in bare)
        assert len(row["v_donor"]) == 2
        assert not (row["id"] in bare and row["image_ok"])
        assert row["id"] in bare or not bare & set(row["v_donor"])
    shown = manifest.filter(pl.col("image").is_not_null())
    assert reference_of(manifest, layout.raw("mine")).tobytes() == reference_of(shown, layout.raw("mine")).tobytes()


def test_posts_with_images_are_edited_as_if_the_others_were_not_there() -> None:
    save(posts())
    run()
    manifest = pl.read_parquet(layout.manifest("mine"))
    editor, sources = Editor(text="random", image="random"), Sources(layout.raw("mine"))
    visual = ["id", "mask", "v_donor", "image_ok", "image_mask_ratio"]
    shown = manifest.filter(pl.col("image").is_not_null())
    both = build(manifest, editor, sources).filter(pl.col("id").is_in(shown["id"].implode())).select(visual)
    assert both.equals(build(shown, editor, sources).select(visual))


def test_images_of_one_class_alone_are_told() -> None:
    save([[row[0], row[1] if row[2] == "pos" else "", *row[2:]] for row in posts()])
    run()
    with pytest.raises(UserError, match="train posts with an image belong to fewer than two classes"):
        build(pl.read_parquet(layout.manifest("mine")), Editor(text="random", image="random"), Sources(layout.raw("mine")))


def test_the_audit_takes_a_missing_image_for_a_cue_and_not_for_a_number() -> None:
    rows = [[row[0], row[1] if row[2] == "pos" or n % 4 == 0 else "", *row[2:]] for n, row in enumerate(posts(160))]
    save(rows)
    summary = run()
    found = audit(pl.read_parquet(layout.manifest("mine")), summary, Audit(min_count=5), layout.raw("mine"))
    assert "has image" in {cue["cue"] for cue in found["shortcuts"]}
    assert all(np.isfinite(cue["log10_p"]) for cue in found["shortcuts"])
    assert found["probes"]["image statistics"]["accuracy"] > found["majority"]["share"]


def _typo(rows: Rows, count: int) -> None:
    for row in rows[:count]:
        row[2] = "Positive" if row[2] == "pos" else "Negative"


def _paths(rows: Rows) -> None:
    for row in rows[:30]:
        row[1] = "../secret.png"


def _texts(rows: Rows) -> None:
    for path in Path("my_folder/images").iterdir():
        path.write_text("no image")


WRONG: dict[str, tuple[Callable[[Rows], Any], dict[str, Any], list[str]]] = {
    "missing column": (len, columns(label="moood"), ["no column 'moood'", "posts.csv (columns.label)", "perhaps 'mood'"]),
    "most labels": (
        lambda rows: _typo(rows, 30),
        {},
        ["30 of 40", "unknown_label", "line 2: label 'Negative'; did you mean 'negative'?", "... and 20 more", "label_map"],
    ),
    "a few labels, counts declared": (
        lambda rows: _typo(rows, 2),
        {"expected": {"train": 32}},
        ["instead of 32", "dropped: 2 unknown_label", "line 3: label 'Positive'"],
    ),
    "paths that climb": (_paths, {}, ["30 of 40", "path_outside_root", "line 2: ../secret.png"]),
    "images that are text": (_texts, {}, ["35 of 40", "not_an_image", "images/1.png"]),
    "one id for all": (len, columns(id="country"), ["duplicate_id", "columns.id"]),
    "all in train": (lambda rows: [row.__setitem__(3, "train") for row in rows], columns(split="country"), ["'valid' is empty", "40 train, 0 valid"]),
    "one class": (lambda rows: [row.__setitem__(2, "pos") for row in rows], {}, ["fewer than two classes: ['positive']", "label_map"]),
    "no table": (len, {"table": "post.csv"}, ["post.csv", "posts.csv", "sources"]),
    "no folder": (len, {"sources": [{"kind": "local", "path": "my_foldr"}]}, ["'my_foldr' does not exist", "did you mean 'my_folder'?"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_told_with_its_place_and_its_mend(name: str) -> None:
    change, settings, words = WRONG[name]
    rows = posts()
    change(rows)
    save(rows)
    with pytest.raises(UserError) as told:
        run(**settings)
    assert told.value.fix
    for word in words:
        assert word in str(told.value), str(told.value)


def test_what_a_failed_prepare_dropped_stays_readable() -> None:
    rows = posts()
    _typo(rows, 30)
    save(rows)
    with pytest.raises(UserError, match=r"all listed in logs/mine/dropped\.csv"):
        run()
    assert pl.read_csv(layout.dropped_log("mine")).height == 30
    save(posts())
    run()
    assert not layout.dropped_log("mine").exists()


def test_a_stage_prints_the_error_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: Any) -> int:
        raise UserError("what is wrong", where="here", fix="mend it")

    with pytest.raises(SystemExit, match="1"):
        _cli.run(main)
    assert capsys.readouterr().err == "error: what is wrong\n  where: here\n  fix:   mend it\n"
