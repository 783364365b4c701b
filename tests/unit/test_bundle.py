"""The folder of a saved model: it is copied whole or not at all, and nothing else is written over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.small_posts import assemble

from causalroute.cli import run
from causalroute.errors import UserError
from causalroute.serving import bundle
from causalroute.serving.assemble import read_params


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    assemble(tmp_path, "posts", "causal_moe", tmp_path / "model")
    return tmp_path / "model"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_copy_takes_the_place_of_a_former_model(saved: Path, tmp_path: Path) -> None:
    assemble(tmp_path, "posts", "erm", tmp_path / "other", reference="text_only")
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty", "other"):
        bundle.copy(saved, tmp_path / name)
        assert contents(tmp_path / name) == contents(saved)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "model", "new", "other"], "nothing is left beside them"


def test_a_model_of_an_earlier_version_is_read(saved: Path) -> None:
    now, config = bundle.open_bundle(saved), json.loads((saved / "config.json").read_text())
    config["backbone"]["settings"]["tokens"] = False
    (saved / "config.json").write_text(json.dumps(config))
    assert bundle.open_bundle(saved).backbone == now.backbone


def test_exporting_a_model_onto_itself_keeps_it(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(saved)
    assert run(["export", str(saved), "--output", f"{saved}/../model"]) == 0
    assert contents(saved) == before
    assert "saved model" in capsys.readouterr().out


def test_folders_that_would_lose_something_are_refused(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for target, why in ((tmp_path / "notes", "holds something"), (tmp_path / "file", "holds something"), (saved / "inner", "inside"), (tmp_path, "inside")):
        before = contents(tmp_path)
        with pytest.raises(UserError, match=why):
            bundle.copy(saved, target)
        assert contents(tmp_path) == before


def test_a_failure_half_way_leaves_the_former_model(saved: Path, tmp_path: Path) -> None:
    def fails() -> None:
        with bundle.replaced(saved) as folder:
            (folder / "config.json").write_text("{}")
            raise OSError("disk full")

    before = contents(saved)
    with pytest.raises(OSError, match="disk full"):
        fails()
    assert contents(tmp_path) == {f"model/{name}": content for name, content in before.items()}


def test_a_new_model_that_cannot_take_its_place_leaves_the_former(saved: Path, tmp_path: Path) -> None:
    before = contents(saved)
    with pytest.raises(FileNotFoundError), bundle.replaced(saved) as folder:
        folder.rmdir()
    assert contents(tmp_path) == {f"model/{name}": content for name, content in before.items()}


def test_a_damaged_settings_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("run: [a\n")
    with pytest.raises(UserError, match="not valid YAML"):
        read_params(tmp_path)
