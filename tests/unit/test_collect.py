"""Reading predictions, and scoring them end to end on made-up ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.unit import synthetic_predictions as synthetic

from causalroute import layout
from causalroute.config import Evaluate, Replicates
from causalroute.errors import UserError
from causalroute.evaluation import collect, scoring
from causalroute.evaluation.collect import Facts

METHODS = ("majority", "bag_of_words", "text_only", "image_only", "erm", "double_swap", "causal_moe")
SIZES = {"valid": 80, "id": 120, "ood": 120}
DATA = synthetic.dataset(METHODS)
SEEDS = Replicates(seeds=3, per_job=2)
EVALUATE = Evaluate(bootstrap=200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        synthetic.write("toy", DATA, SEEDS, SIZES)
    return place


@pytest.fixture(scope="module")
def results(folder: Path) -> scoring.Results:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        facts = Facts(0, {f"ood-{i:05d}": f"id-{i:05d}" for i in range(50)})
        return scoring.score(collect.read_all("toy", DATA, SEEDS), facts, DATA, EVALUATE)


def test_chunks_cover_all_seeds_once() -> None:
    assert collect.chunks(Replicates(seeds=5, per_job=5)) == [(0, 4)]
    assert collect.chunks(Replicates(seeds=5, per_job=2)) == [(0, 1), (2, 3), (4, 4)]


def test_every_method_and_split_is_scored(results: scoring.Results) -> None:
    for method in METHODS:
        for split in SIZES:
            row = results.find(method, split, "accuracy")
            assert row is not None
            assert row.low <= row.mean <= row.high
            assert row.low < row.high
            assert (row.seeds, row.items) == (3, SIZES[split])


def test_accuracy_equals_a_loop(folder: Path, results: scoring.Results) -> None:
    frame = pl.concat([pl.read_parquet(folder / file) for file in collect.prediction_files("toy", "erm", SEEDS)])
    rows = frame.filter((pl.col("split") == "ood") & (pl.col("view") == "factual")).iter_rows(named=True)
    hits = [int(np.argmax(row["p"]) == row["label"]) for row in rows]
    found = results.find("erm", "ood", "accuracy")
    assert found is not None
    assert found.mean == pytest.approx(np.mean(hits))


def test_deterministic_method_has_an_interval_and_no_seed_variance(results: scoring.Results) -> None:
    row = results.find("majority", "id", "accuracy")
    assert row is not None
    assert row.seed_low == row.seed_high == row.mean
    assert row.high - row.low > 0.1


def test_only_the_reference_and_derived_rows_lack_a_comparison(results: scoring.Results) -> None:
    lacking = {row.method for row in results.rows if row.p_holm is None and not row.metric.startswith(("gate_", "expert_"))}  # the reference has no router
    assert lacking == {"erm", scoring.INVERTED}
    assert all(row.p_holm >= row.p for row in results.rows if row.p_holm is not None and row.p is not None)


def test_inverted_bag_of_words_is_one_minus_it(results: scoring.Results) -> None:
    there, here = results.find("bag_of_words", "ood", "accuracy"), results.find(scoring.INVERTED, "ood", "accuracy")
    assert there is not None
    assert here is not None
    assert here.mean == pytest.approx(1 - there.mean)


def test_pairs_are_reported_under_ood(results: scoring.Results) -> None:
    row = results.find("double_swap", "ood", "pair_accuracy")
    assert row is not None
    assert row.items == 50
    assert results.find("double_swap", "id", "pair_accuracy") is None


def test_probe_groups_and_given_groups_are_both_scored(results: scoring.Results) -> None:
    families = {row.metric.partition("/")[0] for row in results.rows if "/" in row.metric}
    assert families == {"source", "text_shortcut", "image_shortcut"}
    probe = results.find("text_only", "id", "text_shortcut/literal conflicting")
    assert probe is not None
    assert probe.mean < 0.5


def test_worst_group_reaches_down_to_every_judged_group(results: scoring.Results) -> None:
    """Which group is worst is uncertain: the interval holds the lowest lower end of all of them."""
    worst = results.find("erm", "id", "worst_group")
    assert worst is not None
    judged = [row for row in results.rows if (row.method, row.split) == ("erm", "id") and row.metric.startswith("source/")]
    assert len(judged) == 2
    assert worst.mean <= min(row.mean for row in judged)
    assert worst.low <= min(row.low for row in judged)


def test_effects_and_router_are_reported_with_intervals(results: scoring.Results) -> None:
    """Both cues move ERM's answer; the mixture is compared with it. Its router has statistics, the others have none."""
    before, after = (results.find(method, "id", "effect_swap_tv") for method in ("erm", "causal_moe"))
    assert before is not None
    assert after is not None
    assert before.low > 0
    assert after.difference is not None
    assert after.difference == pytest.approx(after.mean - before.mean)
    found = [results.find("causal_moe", "ood", name) for name in ("gate_share_tv", "gate_entropy", "gate_agreement", "expert_entropy", "expert_balance")]
    assert all(row is not None and row.low <= row.mean <= row.high and row.higher_is_better is None for row in found)
    assert results.find("erm", "ood", "gate_entropy") is None
    assert results.find("erm", "id", "effect_te") is None  # made with the class shares of the train split, which were not given


def test_mcnemar_has_one_line_for_each_seed_and_test_split(results: scoring.Results) -> None:
    assert len(results.mcnemar) == (len(METHODS) - 1) * 2 * 3


def test_same_input_gives_the_same_rows(folder: Path, results: scoring.Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    facts = Facts(0, {f"ood-{i:05d}": f"id-{i:05d}" for i in range(50)})
    again = scoring.score(collect.read_all("toy", DATA, SEEDS), facts, DATA, EVALUATE)
    assert again.rows == results.rows


def one_method(method: str = "erm") -> pl.DataFrame:
    return synthetic.frame(method, range(2), {"valid": 30, "id": 30})


def read(tmp_path: Path, frame: pl.DataFrame, seeds: tuple[int, ...] = (0, 1)) -> collect.Method:
    frame.write_parquet(tmp_path / "predictions.parquet")
    return collect.read_method([tmp_path / "predictions.parquet"], seeds, synthetic.dataset(("erm",)))


def test_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    there = read(tmp_path, one_method())
    here = read(tmp_path, one_method().sample(fraction=1.0, shuffle=True, seed=0))
    for split in there:
        assert (there[split].items.p == here[split].items.p).all()
        assert (there[split].items.views["core"] == here[split].items.views["core"]).all()


def test_items_without_a_view_are_nan_there(tmp_path: Path) -> None:
    frame = one_method().filter(~((pl.col("view") == "swap_t") & (pl.col("id") == "id-00003")))
    cube = read(tmp_path, frame)["id"].items.views["swap_t"]
    assert np.isnan(cube[:, 3]).all()
    assert np.isfinite(np.delete(cube, 3, axis=1)).all()


def test_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="predictions are missing"):
        collect.read_method([tmp_path / "none.parquet"], [0], DATA)


def test_missing_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"seeds \[0, 1\] found where \[0, 1, 2\]"):
        read(tmp_path, one_method(), (0, 1, 2))


def test_seeds_with_other_items_are_refused(tmp_path: Path) -> None:
    frame = one_method().filter(~((pl.col("seed") == 1) & (pl.col("id") == "id-00003")))
    with pytest.raises(UserError, match="same items"):
        read(tmp_path, frame)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.lit(7, dtype=pl.Int8).alias("label"), "no label"),
        (pl.lit(None, dtype=pl.Int8).alias("label"), "no label"),
        (pl.lit([0.7, 0.7], dtype=pl.List(pl.Float32)).alias("p"), "no probability distribution"),
        (pl.lit([float("nan"), 1.0], dtype=pl.List(pl.Float32)).alias("p"), "no probability distribution"),
        (pl.lit([1.0], dtype=pl.List(pl.Float32)).alias("p"), "2 probabilities"),
    ],
)
def test_bad_values_are_refused(tmp_path: Path, column: pl.Expr, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, one_method().with_columns(column))


def test_methods_on_other_items_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data, seeds = synthetic.dataset(("erm", "text_only")), Replicates(seeds=1, per_job=1)
    synthetic.write("toy", data, seeds, {"valid": 30, "id": 30})
    other = synthetic.frame("text_only", range(1), {"valid": 30, "id": 29})
    other.write_parquet(layout.run("toy", "text_only", 0, 0) / "predictions.parquet")
    with pytest.raises(UserError, match="not evaluated on the same items"):
        collect.read_all("toy", data, seeds)


def test_no_validation_split_is_refused(tmp_path: Path) -> None:
    method = read(tmp_path, one_method())
    with pytest.raises(UserError, match="valid"):
        scoring.complete({"erm": {"id": method["id"]}}, Facts(), DATA.classes)


def test_three_classes_without_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = dataclasses.replace(synthetic.dataset(("text_only", "causal_moe"), ("negative", "neutral", "positive")), task="sentiment")
    seeds = Replicates(seeds=1, per_job=5)
    synthetic.write("toy", data, seeds, {"valid": 40, "id": 60})
    found = scoring.score(collect.read_all("toy", data, seeds), Facts(), data, EVALUATE)
    row = found.find("causal_moe", "id", "f1_macro")
    assert row is not None
    assert row.difference is None
    assert row.seed_low is None
    assert found.find("causal_moe", "id", "f1_positive") is None
    assert scoring.INVERTED not in found.answers
    assert found.mcnemar == []
