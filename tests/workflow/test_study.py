"""Searches and ablations around a run: what they run, and that a run without them knows nothing of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.workflow.project import ROOT, SHELL, Project
from tests.workflow.test_pipeline import tiny

pytestmark = pytest.mark.slow
ABLATED = ["ablate", "evaluate causal_moe@x 0-1", "train causal_moe@x 0-1"]


def name_variant(project: Project) -> None:
    """Lists a variant of causal_moe for ablation."""
    project.edit("params.yaml", "  causal_moe: {}\n", "  causal_moe: {}\n  causal_moe@x: {rank: 2}\n")
    project.edit("params.yaml", "    positive:", "    ablation: [causal_moe@x]\n    positive:")


def ablation(project: Project) -> list[str]:
    project.executed()
    project.snakemake("ablation")
    return project.executed()


def test_an_ablation_runs_when_asked_for_and_only_its_variants(project: Project) -> None:
    name_variant(project)
    assert project.run() == [], "`rule all` does not ask for it"
    assert ablation(project) == ABLATED
    assert ablation(project) == []
    project.edit("params.yaml", "causal_moe@x: {rank: 2}", "causal_moe@x: {rank: 3}")
    assert project.run() == []
    assert ablation(project) == ABLATED
    project.edit("params.yaml", "audit:", "ablation: {seeds: 1}\naudit:")
    assert ablation(project) == sorted(["ablate", *(f"{stage} {method} 0-0" for stage in ("train", "evaluate") for method in ("causal_moe", "causal_moe@x"))])


def test_an_ablation_without_results_makes_what_it_needs_and_no_more(project: Project) -> None:
    name_variant(project)
    for folder in ("data", "features", "counterfactuals", "models", "reports", ".snakemake"):
        shutil.rmtree(project.path(folder))
    jobs = ablation(project)
    assert {"train causal_moe 0-1", "train causal_moe@x 0-1", "features estimated", "gate estimated"} <= set(jobs)
    assert not {"train erm 0-1", "report", "audit", "grade", "features truth"} & set(jobs)


def test_an_ablation_of_nothing_is_told(project: Project) -> None:
    done = project.snakemake("ablation", check=False)
    assert done.returncode != 0
    assert "no data set of this run has variants to compare" in done.stdout + done.stderr
    assert "name variants under `ablation`" in done.stdout + done.stderr


def test_a_search_comes_before_the_training_and_follows_its_settings(project: Project) -> None:
    project.edit("params.yaml", "    positive:", "    search: true\n    positive:")
    project.edit("params.yaml", "audit:", "search: {first_seed: 50}\naudit:")
    jobs = sorted(["search causal_moe", "train causal_moe 0-1", "evaluate causal_moe 0-1", "report"])
    assert project.run() == jobs
    made = json.loads(project.path("models/planted/causal_moe/search.json").read_text())["config"]
    assert made["search"] == {"seeds": 2, "first_seed": 50, "epochs": 0}
    project.edit("params.yaml", "first_seed: 50", "first_seed: 60")
    assert project.run() == jobs
    project.edit("params.yaml", "  causal_moe: {}\n", "  causal_moe: {rank: 4}\n")
    assert project.run() == ["evaluate causal_moe 0-1", "report", "train causal_moe 0-1"], "what params.yaml sets is not searched"


def test_the_real_stages_search_ablate_and_say_so(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in (*SHELL, "environment.yml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    params = tiny()
    planted = params["datasets"]["planted"]  # type: ignore[index]
    planted |= {"methods": ["double_swap", "causal_moe"], "held_out": "", "search": True, "ablation": ["causal_moe@no_experts"]}
    params["methods"] |= {"causal_moe": {"threshold": 0.8}, "causal_moe@no_experts": {"rank": 0, "threshold": 0.8}}  # given, so not searched
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    module = folder / "src/causalroute/methods/double_swap.py"
    module.write_text(module.read_text() + '\nSEARCH = {"ramp_end": (0.4, 0.6)}\n')
    project = Project(folder, tmp_path / "log")
    project.snakemake("ablation", CAUSALROUTE_CACHE=str(tmp_path / "cache"))
    text = project.path("reports/planted/ablation/results.md").read_text()
    assert "| `causal_moe@no_experts`: rank 0 (8) |" in text
    assert not project.path("models/planted/double_swap").exists(), "neither a variant nor a method with one"
    assert not project.path("reports/planted/results.md").exists()
    project.snakemake(CAUSALROUTE_CACHE=str(tmp_path / "cache"))
    found = json.loads(project.path("models/planted/double_swap/search.json").read_text())
    assert [one["settings"] for one in found["candidates"]] == [{"ramp_end": 0.4}, {"ramp_end": 0.6}]
    assert f"`double_swap` `ramp_end` = {found['chosen']['ramp_end']}" in project.path("reports/planted/results.md").read_text()
    assert "Nothing to be done" in project.snakemake("ablation", CAUSALROUTE_CACHE=str(tmp_path / "cache")).stderr
