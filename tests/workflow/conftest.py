"""A scratch project that has run once, and copies of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.workflow.project import JOBS, Project, build


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after its first run; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    project = build(folder / "project", folder / "executed.log")
    assert project.run() == JOBS
    project.commit("reports of the first run")
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, clocks included, to change at will."""
    shutil.copytree(finished.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", tmp_path / "executed.log")
