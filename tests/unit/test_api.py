"""The Python interface: frames in, findings and answers out; saved, loaded and shared without any training data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.unit.small_posts import Predictor, assemble, stand_in, write_table

import causalroute
from causalroute.api import Debiaser
from causalroute.errors import UserError
from causalroute.frames import frame_of
from causalroute.project import train
from causalroute.project.settings import Wanted
from causalroute.serving.posts import Post


def frame(path: Path) -> pl.DataFrame:
    return pl.read_csv(path)


@pytest.mark.slow
def test_the_package_is_light_and_the_names_are_there() -> None:
    code = (
        "import sys, causalroute; heavy = {'torch', 'polars', 'pydantic', 'huggingface_hub'} & set(sys.modules); assert not heavy, heavy; "
        "import causalroute.routing; assert 'polars' not in sys.modules; "
        "assert {'audit', 'Debiaser', 'AuditResult'} <= set(dir(causalroute)); assert causalroute.Debiaser.load"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    with pytest.raises(AttributeError, match="no attribute 'debias'"):
        causalroute.debias  # noqa: B018


@pytest.mark.slow
def test_frames_and_paths_are_audited_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path, 200)
    from_path = causalroute.audit(path, min_count=5)
    from_frame = causalroute.audit(frame(path), root=tmp_path, min_count=5)
    assert {cue["cue"] for cue in from_path.found["shortcuts"]} >= {"#sunny", "#rainy"}
    assert from_frame.found["shortcuts"] == from_path.found["shortcuts"]
    monkeypatch.chdir(tmp_path)
    again = causalroute.audit(frame(path), min_count=5)
    assert again.found["shortcuts"] == from_path.found["shortcuts"], "paths of a frame are relative to the working directory"
    assert callable(causalroute.audit)
    assert causalroute.audit.search.__name__.endswith("search"), "the package of the same name is still there"


def test_a_result_can_be_read_saved_and_shown(tmp_path: Path) -> None:
    result = causalroute.audit(frame(write_table(tmp_path, 120, images=False)), label="mood", image="", min_count=5)
    assert "SHORTCUTS" in result.summary()
    assert "written:" not in result.summary()
    folder = result.save(tmp_path / "out")
    assert json.loads((folder / "audit.json").read_text()) == json.loads(json.dumps(result.found))
    assert (folder / "audit.html").read_text() == result.html()
    assert (folder / "dropped.csv").read_text().startswith("id,reason,where")
    shown = result._repr_html_()
    assert shown.startswith('<iframe sandbox="allow-scripts" srcdoc="')
    assert "<html" not in shown


def test_wrong_settings_and_posts_are_told(tmp_path: Path) -> None:
    posts = frame(write_table(tmp_path, 40, images=False))
    with pytest.raises(UserError, match="settings are folds, alpha"):
        causalroute.audit(posts, aplha=0.1)
    with pytest.raises(UserError, match="alpha must lie between"):
        causalroute.audit(posts, alpha=2.0)
    with pytest.raises(UserError, match="there is no such table"):
        causalroute.audit(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="is no table"):
        causalroute.audit(17)


def test_frames_of_other_kinds() -> None:
    rows = [{"text": "a", "label": 1}, {"text": None, "label": 0}]
    wanted = pl.DataFrame(rows)
    assert frame_of(rows).equals(wanted)
    assert frame_of({"text": ["a", None], "label": [1, 0]}).equals(wanted)
    assert frame_of(wanted.lazy()).equals(wanted)


def test_pandas_frames_keep_their_gaps() -> None:
    pandas = pytest.importorskip("pandas")
    given = pandas.DataFrame({"text": ["a", None, "c"], "label": [1, 2, 3], "share": [0.5, float("nan"), 1.0], "mixed": ["x", 3, None]})
    wanted = pl.DataFrame({"text": ["a", None, "c"], "label": [1, 2, 3], "share": [0.5, None, 1.0], "mixed": ["x", "3", None]})
    assert frame_of(given).equals(wanted)


@pytest.fixture
def fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Debiaser, list[tuple[Wanted, Path, int]]]:
    """A debiaser whose run is a stand-in, and the calls that reached it."""
    stand_in(monkeypatch)
    calls: list[tuple[Wanted, Path, int]] = []

    def run(wanted: Wanted, folder: Path, cores: int, **_: Any) -> train.Done:
        calls.append((wanted, folder, cores))
        assemble(folder, "posts", wanted.method, folder / "model")
        return train.Done(folder, "posts", folder / "model", True)

    monkeypatch.setattr(train, "train", run)
    made = Debiaser("small", seeds=2, epochs=3, cores=1, settings={"train.lr": 0.01}, quiet=True)
    return made.fit(frame(write_table(tmp_path, 30)), root=tmp_path, text="caption", project=tmp_path / "run"), calls


def test_fit_asks_for_what_the_command_would(fitted: tuple[Debiaser, list[tuple[Wanted, Path, int]]], tmp_path: Path) -> None:
    made, [(wanted, folder, cores)] = fitted
    assert (wanted.backbone, wanted.seeds, wanted.epochs, wanted.changes, cores) == ("small", 2, 3, ("train.lr=0.01",), 1)
    assert (wanted.table.text, wanted.table.label, wanted.table.root) == ("caption", None, tmp_path)
    assert pl.read_parquet(wanted.table.path).height == 30
    assert (made.project, made.folder, folder) == (tmp_path / "run", tmp_path / "run" / "model", tmp_path / "run")
    before = wanted.table.path.read_bytes()
    made.fit(frame(tmp_path / "posts.csv"), root=tmp_path, project=tmp_path / "run")
    assert wanted.table.path.read_bytes() == before, "equal frames give equal tables: a second fit is up to date"
    with pytest.raises(UserError, match="something else than a project"):
        made.fit(frame(tmp_path / "posts.csv"), project=tmp_path)


def test_a_fit_without_a_folder_leaves_nothing_behind(fitted: tuple[Debiaser, Any], tmp_path: Path) -> None:
    made = Debiaser("small", quiet=True).fit(tmp_path / "posts.csv")
    assert made.project is not None
    folder = made.project
    assert folder.is_dir()
    del made
    assert not folder.exists()


def test_predictions_of_frames_paths_and_posts(fitted: tuple[Debiaser, Any], tmp_path: Path) -> None:
    made, _ = fitted
    table = tmp_path / "posts.csv"
    of_frame = made.predict(frame(table), root=tmp_path)
    assert of_frame.columns == ["label", "spread", "biased_label", "p_negative", "p_positive"]
    assert of_frame["label"].to_list() == frame(table)["mood"].to_list()
    assert made.predict(table).equals(of_frame)
    predictor: Any = made.predictor
    assert predictor.seen[-1].image == tmp_path / "images" / "p29.png"
    assert made.predict([Post(text="lovely day")])["label"].to_list() == ["positive"]
    assert made.predict(pl.DataFrame({"words": ["lovely"]}), text="words", image="").height == 1
    assert made.explain("awful", str(tmp_path / "images" / "p0.png")).explanation is not None
    with pytest.raises(UserError, match="no column 'wrods'"):
        made.predict(pl.DataFrame({"words": ["lovely"]}), text="wrods")
    with pytest.raises(UserError, match="no column looks like"):
        made.predict(pl.DataFrame({"words": ["lovely"]}))
    with pytest.raises(UserError, match="no such image"):
        made.predict(pl.DataFrame({"caption": ["lovely"], "image": ["nowhere.png"]}))


def test_models_are_saved_loaded_and_shared_as_they_are(fitted: tuple[Debiaser, Any], tmp_path: Path) -> None:
    made, _ = fitted
    config = json.loads((made.folder / "config.json").read_text())  # type: ignore[operator]
    loaded = Debiaser.load(made.save(tmp_path / "saved"))
    assert (loaded.method, loaded.predict([Post(text="lovely")])["label"][0]) == ("causal_moe", "positive")
    loaded.save_pretrained(tmp_path / "hub")
    assert json.loads((tmp_path / "hub" / "config.json").read_text()) == config, "not the mixin's own"
    assert (tmp_path / "hub" / "README.md").read_text() == "card\n"
    again = Debiaser.from_pretrained(tmp_path / "hub")
    assert isinstance(again.predictor, Predictor)
    again.save_pretrained(tmp_path / "hub")
    assert json.loads((tmp_path / "hub" / "config.json").read_text()) == config, "saved over itself"
    with pytest.raises(UserError, match="holds something that is no saved model"):
        made.save(tmp_path / "images")


def test_a_model_saved_over_another_leaves_nothing_of_it(fitted: tuple[Debiaser, Any], tmp_path: Path) -> None:
    made, _ = fitted
    for folder in (tmp_path / "saved", tmp_path / "shared"):
        shutil.copytree(made.folder, folder)  # type: ignore[arg-type]
        (folder / "editor.safetensors").write_bytes(b"of the former model")
    made.save(tmp_path / "saved")
    made.save_pretrained(tmp_path / "shared")
    assert not list(tmp_path.rglob("editor.safetensors"))
    assert made.save(made.folder) == made.folder, "onto itself"  # type: ignore[arg-type]
    assert made.predict([Post(text="lovely")])["label"][0] == "positive"


def test_without_a_model_nothing_is_answered() -> None:
    with pytest.raises(UserError, match="there is no model yet"):
        Debiaser().explain("text")
