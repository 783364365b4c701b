"""A folder or file of this machine, copied; also the careful copy that git and hub sources end with."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from causalroute.config import Dataset, Source
from causalroute.errors import UserError

SKIPPED = {".git", ".cache", "__pycache__"}
HINTS = {
    "mvsa": "MVSA (tweets with photo and text): ask its publisher, MCRLab (mcrlab.net), for the archive; its folder holds data/ and labelResultAll.txt",
    "mmsd": "MMSD / MMSD2.0 (sarcasm): public git repositories have the texts; docs/data.md gives the `sources` entries of kind git",
    "table": "This is your own data: a folder with the table and, where there are any, its images",
    "planted": "The planted benchmark needs no folder: use `sources: [{kind: planted}]`",
}


def materialise(source: Source, dataset: Dataset, target: Path) -> None:
    """Copies `source.path` into `target`.

    Raises:
        UserError: there is no such folder; says what the data set is and where it can be had.
    """
    path = Path(source.path).expanduser()
    if not path.exists():
        there = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, there, n=1)
        hint = f"did you mean {str(path.with_name(near[0]))!r}? Else " if near else ""
        fix = f"{hint}put the data there, or link it: ln -s <your folder> {path}. {HINTS[dataset.format]}"
        raise UserError(f"the data folder {source.path!r} does not exist", where=str(Path.cwd() / path), fix=fix)
    copy_tree(path, target)


def copy_tree(path: Path, target: Path) -> None:
    """Copies a file, or the content of a folder, into the folder `target`.

    Version-control and cache folders are left out. Links are followed inside the folder only: a fetched tree cannot pull in
    other files of this machine.

    Raises:
        UserError: a link leaves the folder or points to a folder, a file is not a plain one, or it is a Git LFS pointer.
    """
    target.mkdir(parents=True, exist_ok=True)
    root = path.resolve()
    for file in [root] if root.is_file() else _walk(root):
        relative = Path(path.name) if root.is_file() else file.relative_to(root)
        plain_file(file, root)
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / relative)


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        yield from (Path(folder) / name for name in sorted(files))
        yield from (Path(folder) / name for name in folders if (Path(folder) / name).is_symlink())


def _unreadable(error: OSError) -> None:
    raise UserError(f"a folder cannot be read: {error.strerror}", where=str(error.filename), fix="mend its permissions")


def plain_file(file: Path, root: Path) -> None:
    """Refuses what must not be copied.

    Raises:
        UserError: `file` is a link that leaves the folder `root`, is not a plain file, or is a Git LFS pointer.
    """
    real = file.resolve()
    if not real.is_relative_to(root):
        raise UserError("a link leaves the data folder", where=f"{file} -> {real}", fix="copy the file in, or name the link's target as a source of its own")
    if not real.is_file():
        raise UserError("not a plain file", where=str(file), fix="data folders may hold files, folders, and links to files inside")
    with file.open("rb") as stream:
        if stream.read(42).startswith(b"version https://git-lfs.github.com/spec/v1"):
            raise UserError(
                "a Git LFS pointer stands where the file should be",
                where=str(file),
                fix="run `git lfs pull` in a clone and use it as a local source, or use an http source",
            )
