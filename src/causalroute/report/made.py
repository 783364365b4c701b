"""What a result was made from and by, in two halves.

`facts` is the same for the same inputs and environment, so that a committed page keeps its bytes from commit to commit: digests of data, settings and code,
and versions. `here` differs from machine to machine and from commit to commit (git revision, machine): it goes on a page that no commit takes.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl

from causalroute import __version__, io
from causalroute.report.blocks import number

PACKAGES = ("torch", "transformers", "numpy", "polars", "snakemake")
POSTS = ("id", "split", "label", "text_sha256", "image_sha256", "attributes")
"""Columns of the manifest that say which posts were used."""
DIGITS = 16


def facts(config: Mapping[str, Any], summary: Mapping[str, Any], manifest: pl.DataFrame) -> list[tuple[str, str]]:
    """Digests and versions.

    Args:
        config: the stage's `--config`; its section `made_by` holds the digests over all jobs of the data set.
        summary: the data set's summary.json, which says what each source brought.
        manifest: all posts.
    """
    digests: Mapping[str, str] = config.get("made_by", {})
    found = [(f"{one['kind']} source", _brought(one)) for one in summary.get("sources", ())]
    found.append(("posts", f"{number(manifest.height)}, SHA-256 {posts_digest(manifest)} (ids, splits, train labels, contents)"))
    found += [(key, f"SHA-256 {digests[key]} ({what})") for key, what in (("settings", "of every job"), ("code", "that any job reaches")) if key in digests]
    return [*found, ("versions", ", ".join(f"{name} {version}" for name, version in versions().items()))]


def _brought(source: Mapping[str, Any]) -> str:
    return f"{number(source['files'])} files, {number(source['bytes'])} bytes, SHA-256 {source['digest'][:DIGITS]}"


def posts_digest(manifest: pl.DataFrame) -> str:
    """One digest of which posts were used, whatever wrote the table."""
    columns = [column for column in POSTS if column in manifest.columns]
    return io.sha256_bytes(*(io.canonical_json(row).encode() for row in manifest.select(columns).iter_rows()))[:DIGITS]


def versions() -> dict[str, str]:
    """causalroute, Python and the packages whose results show, without marks of a build."""
    found = {"causalroute": __version__, "Python": ".".join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return found


def here(folder: Path = Path()) -> list[tuple[str, str]]:
    """The git revision of `folder` and the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [
        ("git revision", revision(folder)),
        ("Python", platform.python_version()),
        ("system", f"{platform.system()} {platform.machine()}, {cores} core{'s' if cores > 1 else ''}"),
    ]


def revision(folder: Path) -> str:
    """The commit that `folder` is at; says where files differ from it, reports and records of the run left aside."""
    head = _git(folder, "rev-parse", "HEAD")
    if not head:
        return "none: this folder is no git checkout"
    changed = _git(folder, "--no-optional-locks", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports", ":!dvc.lock")
    return f"{head}, with {len(changed.splitlines())} changed files" if changed else head


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
