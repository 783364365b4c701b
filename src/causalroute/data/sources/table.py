"""A table of this machine with the images that it names: nothing else of their folder is brought, however much lies there.

The table lands under its own name at the top, images under the very paths that the table gives. An image that is not there, or whose path leaves the
root, is not brought: `prepare` lists its post with the reason.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from causalroute.config import Dataset, Source, suggest
from causalroute.data.formats.table import open_table
from causalroute.data.images import ImageError, resolve
from causalroute.data.records import clean
from causalroute.data.sources.local import plain_file
from causalroute.errors import UserError
from causalroute.io import sha256_file


def materialise(source: Source, dataset: Dataset, target: Path) -> None:
    """Copies the table and the images that it names into `target`.

    Raises:
        UserError: as `files`, or a file is a Git LFS pointer.
    """
    for relative, file in files(source).items():
        plain_file(file, file.resolve().parent)
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / relative)


def files(source: Source) -> dict[str, Path]:
    """Place in the raw folder -> file, of the table and every image it names that is there.

    Raises:
        UserError: there is no such table or column, or an image is called as the table is.
    """
    path, root = Path(source.path).expanduser(), _root(source)
    if not path.is_file():
        fix = "name a CSV, TSV, JSONL or Parquet file; a moved table is named anew by the same `causalroute train` command, or as `path` of its source"
        raise UserError("there is no such table", where=str(Path.cwd() / path), fix=fix)
    found = {path.name: path}
    for relative in named(source):
        try:
            image = resolve(root, relative)
        except ImageError:
            continue
        if relative in found and image.resolve() != path.resolve():
            raise UserError(f"an image is called {relative!r}, as the table is", where=str(root), fix="rename one of them")
        found[relative] = image
    return found


def named(source: Source) -> list[str]:
    """Every image path of the table, each once, in its order; none without a column of images.

    Raises:
        UserError: the table has no such column, or is not a table.
    """
    if not source.images:
        return []
    names, rows = open_table(Path(source.path).expanduser())
    if source.images not in names:
        raise UserError(f"the table has no column {source.images!r}", where=source.path, fix=suggest(source.images, names))
    cells = (row.get(source.images) for _, row in rows if isinstance(row, dict))
    return list(dict.fromkeys(path for cell in cells if cell and (path := clean(cell).strip())))


def is_current(source: Source, brought: Mapping[str, Any]) -> bool:
    """Whether table and images are, byte for byte, those of the source.json `brought`."""
    known = {file["path"]: file for file in brought["files"]}
    here = files(source)
    if known.keys() != here.keys() or any(known[path]["bytes"] != file.stat().st_size for path, file in here.items()):
        return False
    return all(known[path]["sha256"] == sha256_file(file) for path, file in here.items())


def _root(source: Source) -> Path:
    return Path(source.root).expanduser() if source.root else Path(source.path).expanduser().parent
