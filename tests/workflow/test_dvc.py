"""DVC around the workflow: experiments run only what changed, and results travel with the record of how they were made."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml

from tests.workflow.project import JOBS, ROOT, Project

pytestmark = pytest.mark.slow
TRAINED = sorted([*(f"{stage} {method} 0-1" for stage in ("train", "evaluate") for method in ("erm", "causal_moe", "oracle_swap")), "report"])
EVALUATED = sorted([*(job for job in TRAINED if job.startswith("evaluate")), "report"])


@pytest.fixture(scope="module")
def versioned(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished project under DVC, with a local remote that holds its results; not to be changed."""
    folder = tmp_path_factory.mktemp("versioned")
    shutil.copytree(finished.folder, folder / "project", symlinks=True)
    project = Project(folder / "project", folder / "executed.log")
    project.call("dvc", "init", "-f", "-q")
    for name in ("config", ".gitignore"):
        shutil.copy(finished.folder / ".dvc" / name, project.path(f".dvc/{name}"))
    project.call("dvc", "remote", "add", "-d", "storage", str(folder / "storage"))
    project.call("dvc", "repro")
    assert project.executed() == []
    project.commit("results")
    project.call("dvc", "push", "-q")
    return project


@pytest.fixture
def project(versioned: Project, tmp_path: Path) -> Project:
    """A copy of the versioned project, clocks and DVC's cache included."""
    shutil.copytree(versioned.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", tmp_path / "executed.log")


def test_a_fresh_clone_with_a_pull_has_nothing_to_do(versioned: Project, tmp_path: Path) -> None:
    clone = versioned.clone(tmp_path / "clone")
    clone.call("dvc", "pull", "-q")
    assert clone.run() == []
    assert clone.git("status", "--porcelain") == ""
    assert "up to date" in clone.call("dvc", "status").stdout


def test_a_fresh_clone_without_remote_runs_everything_and_stays_clean(versioned: Project, tmp_path: Path) -> None:
    clone = versioned.clone(tmp_path / "clone")
    assert clone.run() == JOBS
    assert clone.git("status", "--porcelain") == ""


def test_an_experiment_runs_only_what_changed(project: Project) -> None:
    project.call("dvc", "exp", "run", "-S", "train.lr=0.002", "--name", "faster")
    assert project.executed() == TRAINED
    assert "0.002" in project.path("params.yaml").read_text()
    assert project.run() == []


def test_an_experiment_in_a_temporary_folder_runs_only_what_changed_with_its_own_code(project: Project) -> None:
    project.edit("src/causalroute/stages/evaluate.py", "'evaluate', 1", "'evaluate', 5")
    project.call("dvc", "exp", "run", "--temp", "-S", "train.lr=0.3", "--name", "temporary")
    assert project.executed() == TRAINED
    project.call("dvc", "exp", "apply", "temporary")
    assert project.run() == []
    made = json.loads(project.path("models/planted/erm/seeds0-1/predictions.parquet").read_text())
    assert made["version"] == 5
    assert json.loads(project.path("models/planted/erm/seeds0-1/history.csv").read_text())["config"]["train"]["lr"] == 0.3


def test_queued_experiments_run_two_at_a_time(project: Project) -> None:
    project.call("dvc", "exp", "run", "--queue", "-S", "++methods.causal_moe.rank=4,16", "--name", "rank")
    project.call("dvc", "queue", "start", "--jobs", "2")
    try:
        assert _states(project) == ["Success", "Success"]
    finally:
        project.call("dvc", "queue", "stop", "--kill")  # an idle worker stays for a while
    assert project.executed() == sorted(["train causal_moe 0-1", "evaluate causal_moe 0-1", "report"] * 2), "features and other methods are shared"
    shown = [project.git("show", f"{_experiment(project, name)}:params.yaml") for name in ("rank-1", "rank-2")]
    assert [yaml.safe_load(text)["methods"]["causal_moe"] for text in shown] == [{"rank": 4}, {"rank": 16}]


def _states(project: Project) -> list[str]:
    """What became of the two queued experiments, once both have ended."""
    deadline = time.time() + 400
    while True:
        found = re.findall(r"Success|Failed", project.call("dvc", "queue", "status").stdout)
        if len(found) == 2 or time.time() > deadline:
            return found
        time.sleep(2)


def _experiment(project: Project, name: str) -> str:
    """The commit of an experiment."""
    lines = project.git("for-each-ref", "refs/exps", "--format=%(objectname) %(refname)").split("\n")
    return next(line.split()[0] for line in lines if line.endswith(f"/{name}"))


def test_an_evaluation_setting_through_dvc_runs_evaluation_alone(project: Project) -> None:
    project.call("dvc", "exp", "run", "-S", "evaluate.bootstrap=300")
    assert project.executed() == EVALUATED


def test_metrics_params_and_staleness_need_no_data(versioned: Project, tmp_path: Path) -> None:
    clone = versioned.clone(tmp_path / "clone")
    clone.call("dvc", "remote", "remove", "storage")
    shown = json.loads(clone.call("dvc", "metrics", "show", "--json").stdout)
    assert "erm" in shown[""]["data"]["reports/planted/metrics.json"]["data"]
    assert "reproduce" not in _stale(clone)
    clone.edit("params.yaml", "lr: 0.001", "lr: 0.002")
    assert "Running stage 'reproduce'" in _stale(clone)
    assert "0.002" in clone.call("dvc", "params", "diff").stdout


def test_every_data_set_has_a_line_among_the_metrics() -> None:
    named = yaml.safe_load((ROOT / "dvc.yaml").read_text())["metrics"]
    assert named == [f"reports/{name}/metrics.json" for name in yaml.safe_load((ROOT / "params.yaml").read_text())["datasets"]]


def _stale(project: Project) -> str:
    """What the check of the continuous integration prints, without the line of a stage that did not change."""
    text = project.call("dvc", "repro", "--dry", "--allow-missing").stdout
    return "\n".join(line for line in text.split("\n") if "didn't change" not in line)
