"""Where the workflow's files are, and the Snakemake command that runs them in a project folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from causalroute.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = "_workflow"
"""Folder of an installed package that holds what lies at the top of a checkout (pyproject.toml: force-include)."""


def root(package: Path = PACKAGE) -> Path:
    """The folder with Snakefile, workflow/ and profiles/: shipped inside an installed package, else the checkout around it.

    Args:
        package: folder of the package.

    Raises:
        UserError: neither is there.
    """
    for folder in (package / SHIPPED, package.parents[1]):
        if (folder / "Snakefile").is_file() and (folder / "workflow").is_dir():
            return folder
    raise UserError("the files of the workflow are missing", where=str(package), fix="install causalroute again, or run it from a checkout")


def of_folder(folder: Path) -> Path:
    """The workflow that belongs to a project folder or checkout: its own where it has one, else that of the running package."""
    return folder.resolve() if (folder / "Snakefile").is_file() else root()


def command(folder: Path, cores: int, more: Sequence[str] = ()) -> list[str]:
    """The Snakemake call for `folder`, with the interpreter that runs this; it names the profile: a user's own `profiles/default` must not take its place."""
    files = of_folder(folder)
    started = [sys.executable, "-m", "snakemake", "--snakefile", str(files / "Snakefile"), "--directory", str(folder.resolve())]
    return [*started, "--workflow-profile", str(files / "profiles" / "default"), "--cores", str(cores), "--nocolor", *more]


def every_core() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
