"""Multimodal LLMs end to end from params.yaml alone: the planted posts, four architectures with tiny random weights, features, heads, zero-shot rows."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest
import yaml

from causalroute.io import read_tensors
from tests.unit import tiny_mllm
from tests.workflow.project import ROOT, SHELL, Project

pytestmark = pytest.mark.slow
KINDS = ("qwen2_5_vl", "llava", "smolvlm", "internvl")
METHODS = {kind: ["erm", "zero_shot"] for kind in KINDS}
METHODS["llava"] = ["erm", "causal_moe", "lora_moe", "zero_shot", "zero_shot_debiased"]
METHODS["qwen2_5_vl"].append("zero_shot_generated")
MORE = {"qwen2_5_vl": {"shots": 2, "generate": 4}}
PROMPTS = [
    {"question": "Is this post sarcastic? Answer yes or no.", "answers": {"literal": "no", "sarcastic": "yes"}},
    {"question": "Does the author mean it? A: yes, B: no.", "answers": {"literal": "A", "sarcastic": "B"}},
]


def params() -> dict[str, object]:
    """The default settings, made small, with one data set for each architecture."""
    chosen = yaml.safe_load((ROOT / "params.yaml").read_text())
    clip = chosen["backbones"]["planted_clip"]
    clip["pretrain"] |= {"images": 64, "steps": 4, "batch_size": 16}
    backbones, datasets = {"planted_clip": clip}, {}
    for kind in KINDS:
        asked = {"prompts": PROMPTS[: 2 if kind == "llava" else 1], "image_side": 48} | MORE.get(kind, {})
        backbones[kind] = {"kind": "mllm", "model": f"external/{kind}", "mllm": asked}
        small = {"train": 24, "valid": 12, "test": 12}
        own = {"backbone": kind, "looker": "planted_clip", "editor": "single", "held_out": "", "methods": METHODS[kind], "ablation": [], "planted": small}
        datasets[f"planted_{kind}"] = chosen["datasets"]["planted"] | own
    small = {"replicates": {"seeds": 2, "per_job": 2}, "evaluate": {"bootstrap": 50}, "run": list(datasets), "datasets": datasets, "backbones": backbones}
    return {**chosen, **small, "train": chosen["train"] | {"epochs": 2}, "audit": chosen["audit"] | {"min_count": 5}}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout after one run."""
    folder = tmp_path_factory.mktemp("mllm") / "project"
    folder.mkdir()
    for name in (*SHELL, "environment.yml"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "params.yaml").write_text(yaml.safe_dump(params(), sort_keys=False))
    for kind in KINDS:
        tiny_mllm.save_mllm(folder / "external" / kind, kind)
    made = Project(folder, folder.parent / "log")
    made.snakemake(CAUSALROUTE_CACHE=str(folder.parent / "cache"))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_ends_in_the_result_table(project: Project, kind: str) -> None:
    metrics = json.loads(project.path(f"reports/planted_{kind}/metrics.json").read_text())
    assert set(METHODS[kind]) <= set(metrics)
    for method in METHODS[kind]:
        assert 0 <= metrics[method]["ood"]["accuracy"]["mean"] <= 1
    factual, metadata = read_tensors(project.path(f"features/planted_{kind}/{kind}/factual.safetensors"))
    assert factual["k"].shape == factual["t"].shape
    assert json.loads(metadata["answers"]) == ["literal", "sarcastic"]
    assert factual["k"].float().std(0).max() > 0.01
    page = project.path(f"reports/planted_{kind}/report.html").read_text()
    assert all(method in page for method in METHODS[kind])


def test_answers_do_not_depend_on_the_seed_and_heads_do(project: Project) -> None:
    def seeds(method: str) -> list[pl.DataFrame]:
        found = pl.read_parquet(project.path(f"models/planted_llava/{method}/seeds0-1/predictions.parquet"))
        return [found.filter(pl.col("seed") == seed).drop("seed") for seed in (0, 1)]

    assert seeds("zero_shot")[0].equals(seeds("zero_shot")[1])
    assert not seeds("erm")[0].equals(seeds("erm")[1])
    assert not seeds("zero_shot")[0].equals(seeds("zero_shot_debiased")[0])


def test_replies_behind_shots_are_a_row_and_their_gaps_are_told(project: Project) -> None:
    metrics = json.loads(project.path("reports/planted_qwen2_5_vl/metrics.json").read_text())
    _, metadata = read_tensors(project.path("features/planted_qwen2_5_vl/qwen2_5_vl/factual.safetensors"))
    manifest = pl.read_parquet(project.path("data/planted_qwen2_5_vl/manifest.parquet"))
    shown = manifest.filter(pl.col("id").is_in(json.loads(metadata["shots"])))
    assert (shown["split"].to_list(), sorted(shown["label"])) == (["train"] * 2, [0, 1])
    row = metrics["zero_shot_generated"]
    for split, counts in json.loads(metadata["unparsed"]).items():
        if split in row:
            assert row[split]["unparsed"]["mean"] == pytest.approx(counts["unparsed"] / counts["replies"], abs=1e-5)
            assert row[split]["accuracy"]["mean"] <= 1 - row[split]["unparsed"]["mean"] + 1e-6
    assert "unparsed" not in metrics["zero_shot"]["id"]


def test_the_looker_made_the_masks_and_a_second_run_has_nothing_to_do(project: Project) -> None:
    assert project.path("features/planted_llava/planted_clip/factual.safetensors").is_file()
    assert "Nothing to be done" in project.snakemake().stderr
