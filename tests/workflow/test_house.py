"""The files around the code agree with each other."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow.project import ROOT

EXTRAS = ("minilm", "mllm", "serve", "onnx", "docs", "dev")


@pytest.fixture(scope="module")
def wanted() -> list[str]:
    """Names of all direct dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    every = [*project["dependencies"], *(name for extra in EXTRAS for name in optional[extra])]
    return [re.split(r"[=<>\[]", name)[0] for name in every]


def test_conda_users_get_the_same_packages(wanted: list[str]) -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert [name.split("[")[0] for name in listed] == ["-c constraints.txt", *wanted]


def test_every_dependency_is_pinned_without_a_build_of_torch(wanted: list[str]) -> None:
    pins = dict(line.lower().split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    assert [name for name in wanted if name.lower() not in pins] == []
    assert "+" not in pins["torch"], "`torch==2.x+cpu` would not be found by those who install a GPU build"


def test_make_without_a_word_lists_every_command() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in ("reproduce", "ablation", "sweep", "test", "test-fast", "lint", "lock", "schema", "clean"):
        assert re.search(rf"^{command} +\w", shown, re.MULTILINE), command


def test_commands_name_files_that_exist() -> None:
    text = (ROOT / "Makefile").read_text() + (ROOT / ".github/workflows/ci.yml").read_text() + (ROOT / ".github/workflows/comment.yml").read_text()
    for name in re.findall(r"scripts/[\w.]+", text):
        assert (ROOT / name).is_file(), name
    assert os.access(ROOT / ".ci/run", os.X_OK)


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / ".github/workflows" / name).read_text())


def test_code_of_a_fork_never_meets_a_token_that_can_write() -> None:
    ci, comment = read("ci.yml"), read("comment.yml")
    assert "pull_request_target" not in str(ci)
    post = next(step for step in ci["jobs"]["report"]["steps"] if "post_comment" in step.get("run", ""))
    assert post["if"] == "github.event.pull_request.head.repo.full_name == github.repository"
    checkout = comment["jobs"]["post"]["steps"][0]
    assert "ref" not in checkout.get("with", {}), "the base branch, not the fork's"
    assert comment["jobs"]["post"]["if"].endswith("github.event.workflow_run.head_repository.full_name != github.repository")


def test_profiles_are_read_and_the_default_holds_nothing_of_a_machine() -> None:
    profiles = {path.parent.name: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "profiles").glob("*/config.yaml"))}
    assert set(profiles) == {"default", "kubernetes", "local", "slurm"}
    assert profiles["default"]["max-checksum-file-size"] == "1TB"
    assert not {"cores", "jobs", "executor", "resources"} & set(profiles["default"])


def test_a_python_that_is_too_old_is_told(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1\nexit 1\n')
    old.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(old)}
    done = subprocess.run(["sh", str(ROOT / "scripts/bootstrap.sh")], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "Python 3.9.1" in done.stderr
