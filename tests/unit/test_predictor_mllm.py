"""A model saved on a multimodal LLM answers as the run did; its editor looks at images through the encoder that looked in training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image
from tests.unit.finished_run import NAME, finish, posts_of, read_config, written

from causalroute import layout
from causalroute.counterfactual.pixels import unpack_mask
from causalroute.errors import UserError
from causalroute.io import read_tensors, write_tensors
from causalroute.serving import predictor as predictor_module
from causalroute.serving.assemble import assemble
from causalroute.serving.encoder import Encoder
from causalroute.serving.posts import Post
from causalroute.serving.predictor import Predictor

pytestmark = pytest.mark.slow

SMALL = {"seed": 0, "train": 24, "valid": 12, "test": 6, "rho_text": 0.9, "rho_image": 0.9, "label_noise": 0.0}
METHODS = ["erm", "causal_moe", "zero_shot"]
CLOSE = 1e-5
"""On a CPU each chat has a pass of its own, in training and here: only the heads' batches differ."""


@pytest.fixture(scope="module", params=["clip", pytest.param("pair", marks=pytest.mark.slow)])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"mllm_{request.param}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAUSALROUTE_CACHE", str(folder / "cache"))
        return finish(folder, "mllm", looker=request.param, methods=METHODS, planted=SMALL)


@pytest.fixture(scope="module")
def model(root: Path) -> Path:
    assemble(root, NAME, "causal_moe", root / "model")
    return root / "model"


def test_answers_are_those_of_the_run_and_cores_those_of_the_looker(root: Path, model: Path) -> None:
    predictor = Predictor.load(model)
    rows, posts = posts_of(root, "ood")
    found = predictor.predict(posts, explain=True)
    table = np.array([list(one.probabilities.values()) for one in found])
    biased = np.array([list((one.biased or {}).values()) for one in found])
    np.testing.assert_allclose(table, written(root, predictor, "causal_moe", "ood"), atol=CLOSE)
    np.testing.assert_allclose(biased, written(root, predictor, "erm", "ood"), atol=CLOSE)
    made = rows.select("id").join(pl.read_parquet(root / layout.counterfactuals(NAME, "mine")), on="id", how="left", maintain_order="left")
    for one, bits, side in zip(found, made["mask"], made["mask_side"], strict=True):
        assert one.explanation is not None
        assert one.explanation.region is not None
        assert (np.array(one.explanation.region.core) == unpack_mask(bits, side)).mean() > 0.98


def test_the_folder_holds_both_encoders_and_moves(root: Path, model: Path, tmp_path: Path) -> None:
    told = read_config(model)
    assert (told["backbone"]["name"], told["looker"]["name"]) == ("tiny", "eyes")
    assert "frozen backbone `tiny` (the cores of images are found by `eyes`)" in (model / "README.md").read_text()
    shutil.copytree(model, tmp_path / "moved")
    one = Post("what a day", Image.new("RGB", (40, 30), (10, 200, 90)))
    assert Predictor.load(tmp_path / "moved").predict([one]) == Predictor.load(model).predict([one])


def test_posts_that_lack_a_side_or_are_too_long_are_answered(model: Path) -> None:
    picture = Image.new("RGB", (40, 30), (10, 200, 90))
    alone, blind, long = Predictor.load(model).predict([Post("what a day"), Post("", picture), Post("so much fun " * 400, picture)])
    assert "no image: the blurred mean image of the training posts stands in for it" in alone.warnings
    assert not any("cut off" in warning for one in (alone, blind) for warning in one.warnings)
    assert any("512 tokens" in warning for warning in long.warnings)


def test_another_model_or_other_questions_are_noticed(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "other")
    told = read_config(model)
    told["backbone"]["settings"]["mllm"]["prompts"][0]["question"] = "Does the author mean it?"
    (tmp_path / "other" / "config.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="not the one that the model was trained on"):
        Predictor.load(tmp_path / "other").warm()


def test_what_asks_the_model_itself_is_not_saved(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'zero_shot' works inside a multimodal LLM"):
        assemble(root, NAME, "zero_shot", tmp_path / "model")
    with pytest.raises(UserError, match="'zero_shot' works inside a multimodal LLM"):
        assemble(root, NAME, "causal_moe", tmp_path / "model", reference="zero_shot")
    assert not (tmp_path / "model").exists()


def test_the_looker_is_loaded_where_something_looks(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(predictor_module, "Encoder", lambda settings, made_with: loaded.append(made_with["name"]) or Encoder(settings, made_with))
    predictor = Predictor.load(model)
    predictor.predict([Post("a text alone has no core to find")])
    assert loaded == []
    predictor.predict([Post("what a day", Image.new("RGB", (40, 30), (10, 200, 90)))])
    assert loaded == ["eyes"]


def test_the_device_of_the_training_is_not_asked_for_again(root: Path, tmp_path: Path) -> None:
    values = yaml.safe_load((root / "params.yaml").read_text())
    values["backbones"]["tiny"]["mllm"]["device"] = "cpu"
    shutil.copytree(root, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "params.yaml").write_text(yaml.safe_dump(values))
    assemble(tmp_path / "run", NAME, "erm", tmp_path / "model")
    assert read_config(tmp_path / "model")["backbone"]["settings"]["mllm"]["device"] == "auto"
    Predictor.load(tmp_path / "model").warm()


def test_features_of_an_earlier_version_are_told(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "run", symlinks=True)
    path = tmp_path / "run" / layout.features(NAME, "tiny", "factual")
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, {key: value for key, value in metadata.items() if key != "model_key"})
    with pytest.raises(UserError, match="earlier version"):
        assemble(tmp_path / "run", NAME, "erm", tmp_path / "model")
