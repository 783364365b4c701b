"""The real stages on a tiny planted data set: a clean run on one core and a run on two that is killed in every stage end in the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.workflow.project import ROOT, SHELL, Project

pytestmark = pytest.mark.slow
METHODS = ["bag_of_words", "erm", "causal_moe", "token_moe", "oracle_erm", "oracle_swap"]
KILLED_IN = [
    "fetch",
    "prepare",
    "pretrain",
    "features/planted_clip/factual",
    "counterfactuals/estimated",
    "features/planted_clip/truth",
    "gate/estimated",
    "tokens/planted_clip/estimated",
    "train",
    "evaluate",
    "report",
]


def tiny() -> dict[str, object]:
    """The default settings, made small."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    planted = params["datasets"]["planted"] | {"methods": METHODS, "planted": {"train": 120, "valid": 60, "test": 60}}
    backbone = params["backbones"]["planted_clip"]
    backbone["pretrain"] |= {"images": 64, "steps": 4, "batch_size": 16}
    small = {"replicates": {"seeds": 2, "per_job": 2}, "evaluate": {"bootstrap": 50}, "datasets": {"planted": planted}, "backbones": {"planted_clip": backbone}}
    return {**params, **small, "train": params["train"] | {"epochs": 3}, "audit": params["audit"] | {"min_count": 5}}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout with tiny settings: one for all tests, whatever is edited meanwhile."""
    folder = tmp_path_factory.mktemp("snapshot") / "project"
    folder.mkdir()
    for name in (*SHELL, "environment.yml"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny(), sort_keys=False))
    return folder


def checkout(snapshot: Path, folder: Path) -> Project:
    """A fresh copy to run in."""
    shutil.copytree(snapshot, folder)
    return Project(folder, folder.parent / f"{folder.name}.log")


def reports(project: Project) -> dict[str, bytes]:
    """Every report file that git would hold."""
    folder = project.path("reports")
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def reference(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Reports of an undisturbed run on one core."""
    folder = tmp_path_factory.mktemp("reference")
    project = checkout(snapshot, folder / "project")
    project.call("snakemake", "--cores", "1", CAUSALROUTE_CACHE=str(folder / "cache"))
    assert "Nothing to be done" in project.call("snakemake", "--cores", "1").stderr
    return reports(project)


def test_reports_hold_what_a_reader_expects(reference: dict[str, bytes]) -> None:
    assert {
        "planted/metrics.json",
        "planted/results.md",
        "planted/results.csv",
        "planted/report.html",
        "planted/audit.json",
        "planted/plots/history.csv",
    } <= set(reference)


def test_a_run_on_two_cores_killed_in_every_stage_ends_in_the_same_bytes(snapshot: Path, reference: dict[str, bytes], tmp_path: Path) -> None:
    project = checkout(snapshot, tmp_path / "project")
    cache = str(tmp_path / "cache")
    reached = [stage for stage in KILLED_IN if killed_in(project, stage, cache)]
    assert len(reached) >= 5, f"only killed in {reached}"
    project.snakemake(CAUSALROUTE_CACHE=cache)
    found = reports(project)
    assert set(found) == set(reference)
    assert [name for name in found if found[name] != reference[name]] == []


def killed_in(project: Project, stage: str, cache: str) -> bool:
    """Starts a run and kills it, children and all, half a second after a job of `stage` has opened its log; False where the run ended before."""
    command = ["snakemake", "--cores", "2", "--quiet", "all"]
    run = subprocess.Popen(command, cwd=project.folder, env=project.environment(CAUSALROUTE_CACHE=cache), stderr=subprocess.DEVNULL, start_new_session=True)
    started = time.time()
    while run.poll() is None:
        if any(path.stat().st_mtime > started for path in project.path("logs").rglob("*.log") if stage in path.as_posix() or stage == path.parent.name):
            time.sleep(0.5)
            break
        if stage == "pretrain" and any(project.path("logs/backbones").glob("*.log")):
            time.sleep(0.5)
            break
        time.sleep(0.02)
    running = run.poll() is None
    if running:
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    return running
