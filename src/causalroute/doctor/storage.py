"""The caches: where they are, how large, whether they can be written, and how much disk is free."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from causalroute import layout
from causalroute.doctor.finding import Finding

GIB = 2**30
LITTLE, NONE = 5 * GIB, GIB // 2
"""Free bytes below which there is a warning, and a problem."""
PATIENCE = 1.0
"""Seconds to spend on adding up the sizes of one cache."""


def hub_cache() -> Path:
    """Where the hub's client keeps downloaded models."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def caches() -> Iterator[Finding]:
    """One finding for each cache, and one for each disk that they lie on."""
    known = {"feature store": layout.feature_store(), "downloads": layout.download_cache(), "replies": layout.reply_cache(), "hub models": hub_cache()}
    move = {name: "HF_HOME" if name == "hub models" else "CAUSALROUTE_CACHE" for name in known}
    disks: dict[int, Path] = {}
    for name, folder in known.items():
        why = unwritable(folder)
        if why:
            yield Finding(
                name, "problem", f"{folder} cannot be written: {why}", f"mend its rights, or name another folder: export {move[name]}=/path/to/a/folder"
            )
        else:
            yield Finding(name, "ok", f"{folder}: {_size(folder)}")
        above = _existing(folder)
        if above:
            disks.setdefault(above.stat().st_dev, above)
    for folder in disks.values():
        yield disk(folder)


def disk(folder: Path) -> Finding:
    """How much is free where a folder lies."""
    free = shutil.disk_usage(folder).free
    told, fix = f"{free / GIB:.1f} GiB free at {folder}", "free some, or move the caches with CAUSALROUTE_CACHE and HF_HOME; what is in them can be made again"
    if free < NONE:
        return Finding("disk", "problem", told, fix)
    return Finding("disk", "warning", told, fix) if free < LITTLE else Finding("disk", "ok", told)


def _existing(folder: Path) -> Path | None:
    """The nearest folder above that is there."""
    return next((path for path in (folder, *folder.parents) if path.exists()), None)


def unwritable(folder: Path) -> str:
    """Why no file could be written into `folder`, which is not made for that; empty when one could be."""
    above = _existing(folder)
    if above is None:
        return "there is nothing above it"
    if not above.is_dir():
        return f"{above} is a file"
    if above != folder:
        return "" if os.access(above, os.W_OK | os.X_OK) else f"{above} is not writable"
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _size(folder: Path) -> str:
    if not folder.exists():
        return "not there yet"
    total, count, end, whole = 0, 0, time.monotonic() + PATIENCE, True
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size  # noqa: PTH118 (thousands of files: pathlib is slow)
            except OSError:  # removed meanwhile
                continue
            count += 1
        if time.monotonic() > end:
            whole = False
            break
    return f"{'' if whole else 'more than '}{total / GIB:.2f} GiB in {count} files"
