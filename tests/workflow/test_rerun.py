"""What runs again after which change: the promise of docs/workflow.md, kept by running stand-in stages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.workflow.project import JOBS, PARAMS, Project

pytestmark = pytest.mark.slow

METHODS = ("causal_moe", "erm", "oracle_swap")
TRAIN = [f"train {method} 0-1" for method in METHODS]
EVALUATE = [f"evaluate {method} 0-1" for method in METHODS]
LATE = sorted([*EVALUATE, "report"])
ESTIMATED = [
    "counterfactuals estimated",
    "features estimated",
    "gate estimated",
    "gallery",
    "grade",
    "train causal_moe 0-1",
    "evaluate causal_moe 0-1",
    "evaluate erm 0-1",
    "report",
]

SETTINGS = {
    "evaluation": ("bootstrap: 100", "bootstrap: 200", LATE),
    "audit": ("folds: 4", "folds: 5", ["audit", "report"]),
    "gate": ("min_posts: 200", "min_posts: 300", ["gate estimated", "gate truth", "gallery", "grade", *TRAIN[::2], *LATE]),
    "training": ("lr: 0.001", "lr: 0.003", [*TRAIN, *LATE]),
    "editor": ("image: saliency}", "image: saliency, swaps: 3}", ESTIMATED),
    "control editor": ("image: random}", "image: random, seed: 7}", ["counterfactuals random", "grade", "report"]),
    "a new seed": ("{seeds: 2, per_job: 2}", "{seeds: 3, per_job: 2}", ["report", *(f"{s} {m} 2-2" for s in ("train", "evaluate") for m in METHODS)]),
    "a search": (
        "    positive:",
        "    search: true\n    positive:",
        ["search causal_moe", "train causal_moe 0-1", "evaluate causal_moe 0-1", "report"],
    ),
    "the budget of searches that are not made": ("audit:", "search: {seeds: 3}\naudit:", []),
    "a method less": ("methods: [erm, causal_moe,", "methods: [causal_moe,", ["report"]),
    "a default written out": ("folds: 4", "folds: 4, alpha: 0.05", []),
    "another order": ("epochs: 4, lr: 0.001", "lr: 0.001, epochs: 4", []),
    "data": ("sources: [{kind: planted}]", "sources: [{kind: planted}]\n    planted: {seed: 3}", [job for job in JOBS if job != "pretrain"]),
}

CODE = {
    "comment": ("helper.py", "# a number", "# one", []),
    "docstring": ("helper.py", '"""Helper."""', '"""Helps."""', []),
    "a stage": ("stages/train.py", "'train', 1", "'train', 2", [*TRAIN, *LATE]),
    "a method": ("methods/erm.py", "EDITOR = None", "EDITOR = None\nVALUE = 2", ["train erm 0-1", "evaluate erm 0-1", "report"]),
    "an editor": ("counterfactual/text/lexicon.py", "VALUE = 1", "VALUE = 2", ESTIMATED),
    "a module that all import": ("helper.py", "VALUE = 1", "VALUE = 2", JOBS),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_runs_its_readers_again(project: Project, name: str) -> None:
    old, new, jobs = SETTINGS[name]
    project.edit("params.yaml", old, new)
    assert project.run() == sorted(jobs)
    assert project.run() == []


@pytest.mark.parametrize("name", CODE)
def test_a_code_edit_runs_what_can_reach_it(project: Project, name: str) -> None:
    file, old, new, jobs = CODE[name]
    project.edit(f"src/causalroute/{file}", old, new)
    assert project.run() == sorted(jobs)


def test_a_method_setting_runs_only_that_method(project: Project) -> None:
    project.edit("params.yaml", "causal_moe: {}", "causal_moe: {warmup: 3}")
    known = '"additionalProperties": false'
    schema = project.path("workflow/schemas/params.schema.json")
    schema.write_text(schema.read_text().replace(known, '"additionalProperties": true'))
    assert project.run() == sorted(["train causal_moe 0-1", "evaluate causal_moe 0-1", "report"])


def test_features_of_tokens_are_made_for_a_method_that_reads_them_and_for_no_other(project: Project) -> None:
    project.edit("params.yaml", "methods: [erm, causal_moe, oracle_swap]", "methods: [erm, causal_moe, oracle_swap, token_moe]")
    own = ["train token_moe 0-1", "evaluate token_moe 0-1"]
    assert project.run() == sorted(["tokens factual", "tokens estimated", *own, "report"])
    project.edit("params.yaml", "image: saliency}", "image: saliency, swaps: 3}")
    assert project.run() == sorted([*ESTIMATED, "tokens estimated", *own])
    assert project.run() == []


def test_swapping_two_values_is_noticed(project: Project) -> None:
    project.edit("params.yaml", "{epochs: 4, lr: 0.001}", "{epochs: 4, hidden: 8, lr: 0.001}")
    project.run()
    project.edit("params.yaml", "{epochs: 4, hidden: 8, lr: 0.001}", "{epochs: 8, hidden: 4, lr: 0.001}")
    assert project.run() == sorted([*TRAIN, *LATE])


def test_touching_every_result_runs_nothing(project: Project) -> None:
    for folder in ("data", "features", "counterfactuals", "models", "reports", "src"):
        for path in sorted(project.path(folder).rglob("*")):
            os.utime(path)
    assert project.run() == []


def test_a_deleted_result_is_made_again_with_what_follows_from_it(project: Project) -> None:
    project.path("models/planted/erm/seeds0-1/weights.safetensors").unlink()
    before = project.path("reports/planted/metrics.json").read_bytes()
    assert project.run() == ["evaluate erm 0-1", "report", "train erm 0-1"]
    assert project.path("reports/planted/metrics.json").read_bytes() == before


def test_one_core_and_two_write_the_same_bytes(finished: Project, project: Project) -> None:
    for folder in ("data", "features", "counterfactuals", "models", "reports", ".snakemake"):
        project.call("rm", "-rf", folder)
    project.call("snakemake", "--cores", "1")
    assert project.executed() == JOBS
    for path in sorted(finished.path("reports").rglob("*.*")):
        assert path.read_bytes() == project.path(str(path.relative_to(finished.folder))).read_bytes(), path


def test_another_data_set_does_not_disturb_the_first(project: Project) -> None:
    text = PARAMS.split("  planted:\n")[1].split("backbones:")[0]
    project.edit("params.yaml", "backbones:", f"  second:\n{text}backbones:")
    assert project.run() == []
    project.edit("params.yaml", "run: [planted]", "run: [planted, second]")
    assert project.run() == [job for job in JOBS if job != "pretrain"]


def test_a_failed_job_shows_its_message_keeps_its_files_and_runs_again(project: Project) -> None:
    project.edit("params.yaml", "lr: 0.001", "lr: 0.002")
    done = project.snakemake("--keep-going", check=False, STANDIN_FAIL="train erm 0-1")
    assert done.returncode != 0
    assert "error: train erm 0-1 was told to fail" in done.stdout + done.stderr
    assert project.executed() == sorted(["train causal_moe 0-1", "train oracle_swap 0-1", "evaluate causal_moe 0-1", "evaluate oracle_swap 0-1"])
    assert project.run() == sorted(["train erm 0-1", "evaluate erm 0-1", "report"])


def test_rules_write_where_layout_says(finished: Project) -> None:
    from causalroute import layout

    paths = [
        layout.source,
        layout.manifest,
        layout.test_labels,
        layout.truth,
        layout.rewrites,
        layout.dropped,
        layout.summary,
        layout.raw,
        layout.reference_image,
    ]
    for path in paths:
        assert finished.path(str(path("planted"))).exists(), path
    assert finished.path(str(layout.run("planted", "erm", 0, 1) / "weights.safetensors")).exists()
    assert finished.path(str(layout.features("planted", "clip", "factual"))).exists()
    assert finished.path(str(layout.counterfactuals("planted", "truth"))).exists()
    assert finished.path(str(layout.reports("planted") / "metrics.json")).exists()
    assert Path(layout.backbone("clip") / "config.json").as_posix() == "models/backbones/clip/config.json"
