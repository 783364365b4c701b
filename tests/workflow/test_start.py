"""How a run starts: settings are checked, one run at a time works, killed runs go on, unknown results stop it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.workflow.project import JOBS, Project

pytestmark = pytest.mark.slow

WRONG = {
    "number as text": ("lr: 0.001", "lr: 1e-3", ["params.yaml", "train.lr", "'1e-3'", "0.001"]),
    "unknown key": ("epochs: 4", "epoch: 4", ["params.yaml", "train.epoch: unknown key", "did you mean 'epochs'?"]),
    "unknown key in a data set": ("    positive:", "    positve:", ["datasets.planted.positve", "did you mean 'positive'?"]),
    "unknown method": ("  erm: {}", "  erm: {}\n  ermm: {}", ["methods.ermm: unknown key", "did you mean 'erm'?"]),
    "unknown backbone": ("backbone: clip", "backbone: clib", ["datasets.planted.backbone", "did you mean 'clip'?"]),
    "missing key": ("    classes: [literal, sarcastic]\n", "", ["datasets.planted", "'classes' is a required property"]),
    "unknown data set": ("run: [planted]", "run: [plantd]", ["run", "did you mean 'planted'?"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_told_with_its_mend(project: Project, name: str) -> None:
    old, new, words = WRONG[name]
    project.edit("params.yaml", old, new)
    done = project.snakemake("-n", check=False)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in text
    for word in words:
        assert word in text, text


def test_results_without_their_record_stop_the_run(project: Project) -> None:
    shutil.rmtree(project.path(".snakemake/metadata"))
    done = project.snakemake(check=False)
    assert done.returncode != 0
    assert "no record of how they were made" in done.stdout + done.stderr
    assert "dvc pull" in done.stdout + done.stderr
    assert project.executed() == []


def test_a_second_run_at_the_same_time_is_refused(project: Project) -> None:
    project.edit("params.yaml", "lr: 0.001", "lr: 0.004")
    first = subprocess.Popen(["snakemake", "--cores", "1"], cwd=project.folder, env=project.environment(STANDIN_SLEEP="3"), stderr=subprocess.DEVNULL)
    try:
        _wait_for_job(project)
        done = project.snakemake(check=False)
        assert done.returncode != 0
        assert "another run is at work" in done.stdout + done.stderr
    finally:
        assert first.wait(timeout=120) == 0
    assert project.run() == []


CORES = 2


@pytest.mark.parametrize("delay", [1.0, 4.0])
def test_a_killed_run_goes_on_where_it_was(finished: Project, project: Project, delay: float) -> None:
    for folder in ("data", "features", "counterfactuals", "models", "reports", ".snakemake"):
        project.call("rm", "-rf", folder)
    run = subprocess.Popen(
        ["snakemake", "--cores", str(CORES)],
        cwd=project.folder,
        env=project.environment(STANDIN_SLEEP="0.7"),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _wait_for_job(project)
    time.sleep(delay)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    before = project.executed()
    again = project.run()
    assert sorted({*before, *again}) == JOBS
    assert len(again) <= len(JOBS) - max(0, len(before) - CORES)  # those that were at work when it was killed run again, no others
    for path in sorted(finished.path("reports").rglob("*.*")):
        assert path.read_bytes() == project.path(str(path.relative_to(finished.folder))).read_bytes(), path


def _wait_for_job(project: Project) -> None:
    """Until the first job has started or ended."""
    deadline = time.time() + 60
    while time.time() < deadline and not (project.log.exists() or any(project.path(".snakemake/incomplete").glob("*"))):
        time.sleep(0.1)
