"""The evaluate stage: predictions of a trained job in the long format."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tests import simulated

from causalroute import io, layout
from causalroute.errors import UserError
from causalroute.evaluation.predict import VIEWS, Weights
from causalroute.stages import evaluate, train

BUDGET = {"epochs": 3, "batch_size": 64, "lr": 0.01, "hidden": 16}
COLUMNS = {
    "id": pl.String, "seed": pl.Int32, "split": pl.String, "view": pl.String, "label": pl.Int8, "p": pl.List(pl.Float32), "te": pl.List(pl.Float32),
    "nde_t": pl.List(pl.Float32), "nde_v": pl.List(pl.Float32), "nde_tv": pl.List(pl.Float32), "gates": pl.List(pl.Float32),
    "experts": pl.List(pl.Float32), "group:kind": pl.String,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("predict")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        simulated.write(train=200, valid=60, test=40)
    return root


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def predictions(method: str, seeds: str = "0-1") -> pl.DataFrame:
    head = ["--dataset", "sim", "--method", method, "--seeds", seeds]
    assert train.main([*head, "--config", simulated.config(train=BUDGET, method={})]) == 0
    assert evaluate.main([*head, "--config", simulated.config(evaluate={}, method={})]) == 0
    first, _, last = seeds.partition("-")
    return pl.read_parquet(layout.run("sim", method, int(first), int(last)) / "predictions.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["erm", "majority", "bag_of_words", "oracle_erm", "causal_moe"])
def test_every_item_view_and_seed_once(method):
    frame = predictions(method)
    assert dict(frame.schema) == COLUMNS
    views = ["factual"] if method == "bag_of_words" else list(VIEWS)
    assert frame["view"].unique(maintain_order=True).to_list() == views
    assert frame.height == 2 * len(views) * (60 + 3 * 40)
    assert frame.select("id", "seed", "view").is_unique().all()
    assert set(frame["split"].unique()) == {"valid", "id", "ood", "neutral"}
    assert frame["p"].list.sum().to_list() == pytest.approx([1.0] * frame.height, abs=1e-4)
    mediated = method == "causal_moe"
    for name in ("te", "nde_t", "nde_v", "nde_tv", "gates", "experts"):
        assert frame[name].null_count() == (0 if mediated else frame.height)
    if mediated:
        assert frame["gates"].list.len().unique().to_list() == [4]
    assert frame["group:kind"].null_count() == 0


def test_labels_come_from_the_file_of_test_labels():
    frame = predictions("erm", "0-0").filter(pl.col("view") == "factual")
    known = pl.read_parquet(layout.test_labels("sim")).rename({"label": "truth"})
    joined = frame.join(known, on="id")
    assert joined.height == 120
    assert (joined["label"] == joined["truth"]).all()


def test_predictions_are_those_of_the_chosen_epoch_and_repeat_to_the_byte():
    frame = predictions("double_swap", "0-0")
    path = layout.run("sim", "double_swap", 0, 0)
    before = (path / "predictions.parquet").read_bytes()
    predictions("double_swap", "0-0")
    assert (path / "predictions.parquet").read_bytes() == before
    valid = frame.filter((pl.col("split") == "valid") & (pl.col("view") == "factual"))
    accuracy = (valid["p"].list.arg_max() == valid["label"]).mean()
    epoch = io.read_json(path / "selection.json")["seed0"]["epoch"]
    row = pl.read_csv(path / "history.csv").filter(pl.col("epoch") == epoch)
    assert accuracy == pytest.approx(row["valid/factual"][0], abs=1e-5)


def test_views_are_what_they_are_called():
    frame = predictions("text_only", "0-0")
    wide = frame.with_columns(pl.col("p").list.get(1)).pivot(on="view", index="id", values="p")
    assert (wide["factual"] == wide["swap_v"]).all()
    assert (wide["swap_t"] == wide["swap_tv"]).all()
    assert (wide["factual"] != wide["swap_t"]).all()


def test_weights_restore_without_the_configuration():
    predictions("causal_moe", "0-0")
    weights = Weights(layout.run("sim", "causal_moe", 0, 0) / "weights.safetensors")
    assert weights.seeds == [0]
    assert weights.shape.hidden == 16
    assert weights.standard.t_mean.shape == (simulated.DIM,)
    assert not weights.restore(0).training


def test_missing_labels_are_told():
    predictions("erm", "0-0")
    path = layout.test_labels("sim")
    whole = pl.read_parquet(path)
    io.write_parquet(path, whole.slice(1))
    try:
        with pytest.raises(UserError, match="1 evaluated items have no label"):
            evaluate.main(["--dataset", "sim", "--method", "erm", "--seeds", "0-0", "--config", simulated.config(evaluate={}, method={})])
    finally:
        io.write_parquet(path, whole)
