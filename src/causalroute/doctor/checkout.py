"""A checkout or a project folder: its tools, its params.yaml, results without a record of their making, and locks that a killed run left."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from causalroute.doctor import packages
from causalroute.doctor.finding import Finding
from causalroute.errors import UserError
from causalroute.provenance import RunLock, unrecorded

if TYPE_CHECKING:
    from causalroute.config import Config

PARAMS = "params.yaml"
RESULTS = (
    *("data/{}/*.parquet", "data/{}/*.json", "data/{}/*.csv", "data/{}/*.html", "counterfactuals/{}/*"),
    *("features/{}/*/*.safetensors", "models/{}/*/seeds*/*", "models/{}/*/search.json"),
)
"""What the workflow makes for a data set, but the reports: small ones are in git, where a clone has them without a record."""
UNFINISHED = (".tmp", ".part", ".pt")


def look(folder: Path) -> Iterator[Finding]:
    """The findings; none but where this is no project."""
    if not folder.is_dir():
        yield Finding("project", "problem", f"there is no folder {folder}", "name a checkout or a project folder")
    elif not (folder / PARAMS).is_file():
        yield Finding("project", "ok", f"none: {folder.resolve()} holds no {PARAMS}")
    else:
        if (folder / "Makefile").is_file():
            yield from tools()
        config, finding = settings(folder)
        yield finding
        if config is not None:
            yield from results(folder, config.run)
        yield from locks(folder)


def tools() -> Iterator[Finding]:
    """Programs that a checkout is worked on with."""
    absent = [name for name in ("git", "make") if shutil.which(name) is None]
    if absent:
        yield Finding("tools", "problem", f"not found: {', '.join(absent)}", f"install them (Debian: apt-get install {' '.join(absent)})")
    else:
        yield Finding("tools", "ok", "git, make")


def settings(folder: Path) -> tuple[Config | None, Finding]:
    """params.yaml as it is parsed, and whether it can be."""
    try:
        import yaml

        from causalroute import schema
        from causalroute.config import Config, parse
    except ImportError as error:
        return None, Finding(PARAMS, "problem", f"cannot be checked: {error}", "see the packages above")
    try:
        values = yaml.safe_load((folder / PARAMS).read_text(encoding="utf-8"))
        around = (folder, packages.TOP, Path(packages.__file__).resolve().parents[1] / "_workflow")  # a project folder has no schema of its own
        root = next((place for place in around if (place / schema.SCHEMA).is_file()), None)
        config = schema.check(values, root=root) if root else parse(Config, json.dumps(values))
    except UserError as error:
        return None, Finding(PARAMS, "problem", error.what, error.fix)
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        return None, Finding(PARAMS, "problem", f"cannot be read: {error}", "correct it: YAML, UTF-8, no anchors to objects of Python")
    return config, Finding(PARAMS, "ok", f"valid; run: {', '.join(config.run)}")


def results(folder: Path, run: tuple[str, ...]) -> Iterator[Finding]:
    """Result files that nothing is known of: the workflow refuses to build on them."""
    made = sorted(
        path.relative_to(folder).as_posix()
        for pattern in RESULTS
        for name in run
        for path in folder.glob(pattern.format(name))
        if path.is_file() and not path.name.startswith(".") and path.suffix not in UNFINISHED
    )
    strangers = unrecorded(made, folder)
    if strangers:
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        fix = (
            "dvc pull (or dvc checkout) brings results together with their record; or remove them (in a checkout: make clean), and the next run makes them anew"
        )
        yield Finding("results", "problem", f"without a record of how they were made: {', '.join(strangers[:3])}{more}", fix)
    else:
        yield Finding("results", "ok", f"{len(made)} files, all with a record of how they were made" if made else "none yet")


def locks(folder: Path) -> Iterator[Finding]:
    """Whether a run is at work, and what locks a killed one left behind."""
    if at_work(folder):
        yield Finding("run lock", "ok", "a run is at work in this folder")
        return
    stale = [f"{path.relative_to(folder)}" for path in sorted(folder.glob(".snakemake/locks/*"))]
    if stale:
        yield Finding("run lock", "warning", f"no run is at work, and Snakemake's lock is still there: {stale[0]}", "snakemake --unlock")
    dead = dead_holders(folder / ".dvc" / "tmp" / "rwlock")
    if dead:
        yield Finding("run lock", "warning", f".dvc/tmp/rwlock names processes that are gone: {', '.join(map(str, dead))}", "rm .dvc/tmp/rwlock")
    if not stale and not dead:
        yield Finding("run lock", "ok", "free")


def at_work(folder: Path) -> bool:
    """Whether a live run holds the lock of the folder; it is asked for and let go, not made."""
    file = folder / ".snakemake" / "run.lock"
    if not file.is_file():
        return False
    lock = RunLock(file)
    try:
        lock.acquire()
    except UserError:
        return True
    except OSError:  # not ours to open: whether it is held cannot be known
        return False
    if lock.handle is not None:
        os.close(lock.handle)
    return False


def dead_holders(file: Path) -> list[int]:
    """Numbers of processes that DVC's lock file names and that are no more."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        entries = [one for path in held.values() for kind in path.values() for one in (kind if isinstance(kind, list) else [kind])]
        numbers = sorted({int(one["pid"]) for one in entries})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []
    return [number for number in numbers if not _lives(number)]


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
