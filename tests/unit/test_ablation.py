"""The ablation: variants beside their methods, on a made-up run."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.unit import synthetic_predictions as synthetic

from causalroute import io, layout
from causalroute.config import Dataset, Evaluate, Replicates
from causalroute.errors import UserError
from causalroute.evaluation import statistics
from causalroute.evaluation.collect import read_all
from causalroute.evaluation.groups import PROBES
from causalroute.evaluation.scoring import Results, score
from causalroute.report import ablation
from causalroute.report.write import read_facts
from causalroute.stages import ablate as stage

pytestmark = pytest.mark.slow

SIZES = {"valid": 60, "id": 100, "ood": 100, "neutral": 80}
SEEDS = Replicates(seeds=3, per_job=2)
EVALUATE = Evaluate(bootstrap=100)
SETTINGS: dict[str, dict[str, Any]] = {
    "text_only": {}, "causal_moe": {}, "causal_moe@dense": {"top_k": 0}, "causal_moe@bad": {"rank": 0, "te": 0.5}, "erm": {}, "erm@same": {},
    "token_moe": {}, "token_moe@x": {"masked": False},
}  # fmt: skip
VARIANTS = [name for name in SETTINGS if "@" in name]
SKILL = {"token_moe": (1.8, 1.8), "token_moe@x": (1.8, 1.7), "causal_moe@dense": (2.8, 0.2), "causal_moe@bad": (1.8, 1.6), "erm@same": (1.8, 1.8)}


def dataset() -> Dataset:
    """The data set as the stage sees it."""
    return dataclasses.replace(synthetic.dataset(tuple(SETTINGS)), ablation=tuple(VARIANTS))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run and its ablation; `erm@same` answers like `erm`."""
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name, skill in SKILL.items():
            patch.setitem(synthetic.SKILL, name, skill)
        synthetic.write("toy", dataset(), SEEDS, SIZES)
        for method, settings in SETTINGS.items():
            for first, last in ((0, 1), (2, 2)):
                tensors = {f"seed{seed}/w": torch.zeros(5) for seed in range(first, last + 1)}
                io.write_tensors(layout.run("toy", method, first, last) / "weights.safetensors", tensors, {"settings": io.canonical_json(settings)})
        for first, last in ((0, 1), (2, 2)):
            source, target = (layout.run("toy", method, first, last) / "predictions.parquet" for method in ("erm", "erm@same"))
            target.write_bytes(source.read_bytes())
        train = {"items": 300, "labels": {"literal": 150, "sarcastic": 150}}
        io.write_json(layout.summary("toy"), {"classes": ["literal", "sarcastic"], "splits": {"train": train}})
        io.write_parquet(layout.manifest("toy"), pl.DataFrame({"id": ["x"], "pair": [None]}, schema={"id": pl.String, "pair": pl.String}))
        assert stage.main(arguments()) == 0
    return place


def arguments() -> list[str]:
    sections = {"dataset": dataset(), "evaluate": EVALUATE, "replicates": SEEDS}
    return ["--dataset", "toy", "--config", json.dumps({key: dataclasses.asdict(value) for key, value in sections.items()})]


def results() -> Results:
    facts = read_facts("toy", dataset(), io.read_json(layout.summary("toy")))
    return score(read_all("toy", dataset(), SEEDS), facts, dataset(), EVALUATE)


@pytest.fixture(autouse=True)
def _inside(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)


def test_the_difference_is_that_of_the_method_and_holm_runs_over_the_variants() -> None:
    found = ablation.against_parents(results(), VARIANTS, EVALUATE)
    samples = results().samples
    assert {(one.method, one.control) for one in found} == {(name, name.split("@")[0]) for name in VARIANTS}
    for split in ("id", "ood", "neutral"):
        for metric in ("accuracy", "worst_group", "nll_calibrated"):
            family = [one for one in found if (one.split, one.metric) == (split, metric)]
            assert [one.method for one in family] == VARIANTS
            p = []
            for one in family:
                ours, theirs = samples[one.method, split, metric], samples[one.control, split, metric]
                expected = statistics.difference(ours, theirs, EVALUATE.confidence)
                assert (one.difference, one.difference_low, one.p) == (expected.mean, expected.low, expected.p)
                assert one.difference == pytest.approx(float(np.mean(ours.point - theirs.point)))
                p.append(expected.p)
            ranked = sorted(p)
            steps = np.maximum.accumulate([min(1.0, (len(p) - rank) * value) for rank, value in enumerate(ranked)])
            assert [one.p_holm for one in family] == pytest.approx([steps[ranked.index(value)] for value in p])


def test_files_hold_methods_and_variants_and_no_probe(run: Path) -> None:
    folder = run / layout.ablation("toy")
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.json", "results.csv", "results.md"]
    table = pl.read_csv(folder / "results.csv")
    assert set(table["method"]) == set(SETTINGS) - set(PROBES.values()) == set(io.read_json(folder / "metrics.json"))
    assert set(table["split"]) == {"id", "ood", "neutral"}
    parents = table.filter(~pl.col("method").str.contains("@"))
    assert parents["difference"].null_count() == parents.height, "erm is a method here like any other, not the reference"
    assert table.filter(pl.col("method").str.contains("@"))["p_holm"].null_count() == 0
    same = table.filter(pl.col("method") == "erm@same")
    assert (set(same["difference"]), set(same["p"]), set(same["parent"])) == ({0.0}, {1.0}, {"erm"})
    bad = table.filter((pl.col("method") == "causal_moe@bad") & (pl.col("split") == "ood") & (pl.col("metric") == "accuracy"))
    assert bad["difference_high"].item() < 0
    assert set(table["parameters"]) == {5}


def test_a_reader_sees_settings_differences_and_verdicts(run: Path) -> None:
    text = (run / layout.ablation("toy") / "results.md").read_text()
    assert "| `causal_moe@bad`: rank 0 (8), te 0.5 (1.0) |" in text
    assert "| `causal_moe@dense`: top\\_k 0 (2) |" in text
    assert "| `erm@same`: the same settings |" in text
    assert text.index("| `causal_moe` |") < text.index("| `causal_moe@dense`:") < text.index("| `erm` |")
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if " p " in line and line.startswith("|")}
    assert list(rows) == [f"`{name}`" for name in VARIANTS]
    assert rows["`erm@same`"].count("+0.0 [0.0, 0.0] p 1.000 =") == 6
    assert re.search(r"\| -\d+\.\d \[-\d+\.\d, -\d+\.\d\] p < \.001 ▼ \|", rows["`causal_moe@bad`"])
    assert "over all variants (4)" in text
    assert "worst group OOD" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len({line.count("|") for line in lines}) for lines in tables] == [1, 1], "rectangular"


def test_it_repeats_to_the_byte(run: Path) -> None:
    folder = run / layout.ablation("toy")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    stage.main(arguments())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"earlier stage(.|\n)*summary\.json"):
        stage.main(arguments())
