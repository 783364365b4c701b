"""`causalroute predict` and `causalroute export`: posts and tables in, words and files out; nothing lost, nothing silent."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from tests.unit.finished_run import NAME, finish, read_config

from causalroute import layout
from causalroute.cli import BAD_INPUT, run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("run"), methods=["erm", "causal_moe"])


@pytest.fixture(scope="module")
def model(root: Path) -> Path:
    assert run(["export", str(root), "--output", str(root / "model")]) == 0
    return root / "model"


@pytest.fixture
def table(root: Path, tmp_path: Path) -> Path:
    """Six posts of the run: one without image, one whose image is missing, one that leaves the folder, one that is empty."""
    rows = pl.read_parquet(root / layout.manifest(NAME)).filter(split="id").head(6).select(post_id="id", caption="text", photo="image")
    shutil.copytree(root / layout.raw(NAME) / "images", tmp_path / "images")
    shutil.copyfile(tmp_path / "images" / "id" / sorted(path.name for path in (tmp_path / "images" / "id").iterdir())[0], tmp_path.parent / "secret.png")
    photos = [*rows["photo"][:2], None, "images/absent.png", "../secret.png", None]
    captions = [*rows["caption"][:5], " "]
    rows.with_columns(pl.Series("photo", photos), pl.Series("caption", captions)).write_csv(tmp_path / "posts.csv")
    return tmp_path / "posts.csv"


@pytest.mark.slow
def test_a_post_in_words_and_in_json(model: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = root / layout.raw(NAME) / str(pl.read_parquet(root / layout.manifest(NAME)).filter(split="id")["image"][0])
    post = ["--text", "so much fun #kitchen \x1b[31mred", "--image", str(image)]
    assert run(["predict", str(model), *post, "--explain"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("causal_moe: ")
    assert "\nerm: " in told
    assert "gate     keep" in told
    assert "image    # core" in told
    assert "\x1b" not in told
    assert run(["predict", str(model), *post, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["probabilities"]) == {"literal", "sarcastic"}
    assert sum(found["probabilities"].values()) == pytest.approx(1)
    assert found["label"] == max(found["probabilities"], key=found["probabilities"].get)


def test_every_row_of_a_table_is_accounted_for(model: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(model), str(table), "--output", str(tmp_path / "out.csv")]) == 1
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == pl.read_csv(table)["post_id"].to_list()
    assert [bool(row["label"]) for row in rows] == [True, True, True, False, False, False]
    assert [bool(row["error"]) for row in rows] == [False, False, False, True, True, True]
    assert "no image" in rows[2]["warnings"]
    assert "no such image file" in rows[3]["error"]
    assert "leaves the data folder" in rows[4]["error"]
    assert "3 of 6 rows have no prediction" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "tsv"])
def test_formats_agree(model: Path, table: Path, tmp_path: Path, ending: str) -> None:
    run(["predict", str(model), str(table), "--output", str(tmp_path / "out.csv"), "--explain"])
    run(["predict", str(model), str(table), "--output", str(tmp_path / f"out.{ending}"), "--explain"])
    wanted = pl.read_csv(tmp_path / "out.csv")
    if ending == "jsonl":
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [row.get("label") for row in rows] == wanted["label"].to_list()
        assert rows[0]["probabilities"]["literal"] == pytest.approx(wanted["p:literal"][0])
        assert "".join(word["text"] for word in rows[0]["explanation"]["words"])
        return
    found = pl.read_parquet(tmp_path / "out.parquet") if ending == "parquet" else pl.read_csv(tmp_path / "out.tsv", separator="\t")
    assert found.columns == wanted.columns
    assert {"TE:literal", "gate:both", "expert:text 2", "context"} <= set(found.columns)
    assert found["p:sarcastic"].to_list() == wanted["p:sarcastic"].to_list()


def test_a_table_to_standard_output(model: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["predict", str(model), str(table)])
    assert capsys.readouterr().out.splitlines()[0].startswith("id,label,p:literal")
    run(["predict", str(model), str(table), "--format", "json"])
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL"], "give either a table, or a post"),
        (["MODEL", "TABLE", "--text", "x"], "give either a table, or a post"),
        (["MODEL", "TABLE", "--text-column", "captoin"], "no column 'captoin'"),
        (["MODEL", "TABLE", "--text-column", "", "--image-column", ""], "no column looks like the text"),
        (["MODEL", "absent.csv"], "absent.csv"),
        (["MODEL", "TABLE", "--output", "out.xlsx"], "ending of 'out.xlsx'"),
        (["absent", "--text", "x"], "no saved model"),
        (["MODEL", "--text", " "], "nothing that this model reads"),
    ],
)
def test_mistakes_are_told(model: Path, table: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    named = {"MODEL": str(model), "TABLE": str(table)}
    assert run(["predict", *[named.get(one, one) for one in arguments]]) == BAD_INPUT
    told = capsys.readouterr().err
    assert message in told
    assert "fix:" in told


def test_a_model_is_copied_and_exported_again(model: Path, root: Path, tmp_path: Path) -> None:
    assert run(["export", str(model), "--output", str(tmp_path / "copy")]) == 0
    assert read_config(tmp_path / "copy") == read_config(model)
    assert run(["export", str(root), "--dataset", NAME, "--method", "erm", "--output", str(tmp_path / "copy")]) == 0
    assert read_config(tmp_path / "copy")["method"] == "erm"
    assert read_config(tmp_path / "copy")["reference"] == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL"], "nothing to export to"),
        (["MODEL", "--method", "erm", "--output", "x"], "choose from a run"),
        (["ROOT", "--onnx", "head.onnx"], "say where with --output"),
        (["ROOT", "--method", "poe", "--output", "x"], "has no method 'poe'"),
        (["MODEL", "--push", "not a name"], "the hub refused"),
    ],
)
def test_exports_that_cannot_be_are_told(
    model: Path, root: Path, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"MODEL": str(model), "ROOT": str(root)}
    assert run(["export", *[named.get(one, one) for one in arguments]]) == BAD_INPUT
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
