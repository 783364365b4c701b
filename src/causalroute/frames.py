"""Posts as users hold them (frames of polars or pandas, lists, dictionaries, paths) -> the table file that all else reads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from causalroute.errors import UserError
from causalroute.io import write_parquet

FRAME = "posts.parquet"
"""Name of the table that a frame becomes."""


def is_path(posts: Any) -> bool:
    """Whether posts are given as the path of a table."""
    return isinstance(posts, str | Path)


@contextmanager
def table_of(posts: Any) -> Iterator[Path]:
    """The file of a path, or a temporary one of a frame.

    Raises:
        UserError: there is no such file, or `posts` is no table.
    """
    if is_path(posts):
        if not Path(posts).is_file():
            raise UserError("there is no such table", where=str(posts), fix="name a CSV, TSV, JSONL or Parquet file, or give a frame")
        yield Path(posts)
        return
    with tempfile.TemporaryDirectory(prefix="causalroute-") as folder:
        path = Path(folder) / FRAME
        write_parquet(path, frame_of(posts))
        yield path


def written(posts: Any, folder: Path) -> Path:
    """A frame as a table of the project `folder`: equal frames give equal bytes, so that a second fit has nothing to do.

    Raises:
        UserError: the folder holds something else than a project, or `posts` is no table.
    """
    from causalroute.project import params

    frame = frame_of(posts)
    params.check_folder(folder)
    params.note(folder, table=FRAME)
    write_parquet(folder / FRAME, frame)
    return folder / FRAME


def frame_of(posts: Any) -> pl.DataFrame:
    """A polars frame of a frame like those of polars or pandas, of a list of dictionaries, or of a dictionary of lists.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(posts, pl.LazyFrame):
        posts = posts.collect()
    if isinstance(posts, pl.DataFrame):
        return posts
    if hasattr(posts, "columns") and hasattr(posts, "isna"):
        return pl.DataFrame([_series(str(name), posts[name].tolist(), posts[name].isna().tolist()) for name in posts.columns])
    try:
        return pl.DataFrame(posts, infer_schema_length=None)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        fix = "give a polars or pandas frame, a list of dictionaries, or a path"
        raise UserError(f"{type(posts).__name__} is no table: {str(error).splitlines()[0]}", where="posts", fix=fix) from None


def _series(name: str, values: list[Any], missing: list[bool]) -> pl.Series:
    """One column; values of mixed kinds become text."""
    cells = [None if lost else value for value, lost in zip(values, missing, strict=True)]
    kinds = {type(value) for value in cells if value is not None}
    plain = len(kinds) == 1 and kinds <= {str, int, float, bool}
    return pl.Series(name, cells if plain else [None if value is None else str(value) for value in cells])
