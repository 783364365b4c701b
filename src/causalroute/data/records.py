"""What every format reader returns, and the small helpers readers share.

`Records.frame` has one row per post that the reader could make sense of; the manifest builder checks it further.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from causalroute.errors import UserError

Schema = dict[str, pl.DataType | type[pl.DataType]]
GROUP = "group:"
COLUMNS: Schema = {
    "id": pl.String,
    "split": pl.String,
    "text": pl.String,
    "image": pl.String,
    "attributes": pl.String,
    "label": pl.String,
    "pair": pl.String,
    "where": pl.String,
}
DROPPED: Schema = {"id": pl.String, "reason": pl.String, "where": pl.String}
SPAN = pl.List(pl.Struct({"start": pl.Int32, "end": pl.Int32}))
TRUTH: Schema = {
    "id": pl.String,
    "core_text": pl.Int8,
    "core_image": pl.Int8,
    "cue_text": pl.Int8,
    "cue_image": pl.Int8,
    "core_spans": SPAN,
    "cue_spans": SPAN,
    "core_box": pl.List(pl.Float32),
    "image_size": pl.Int32,
    "noisy": pl.Boolean,
    "effect_text": pl.Float32,
    "effect_image": pl.Float32,
}
REWRITES: Schema = {"id": pl.String, "text": pl.String, "label": pl.Int8}


@dataclasses.dataclass(frozen=True)
class Records:
    """Posts of a data set before any check of images, labels or duplicates."""

    frame: pl.DataFrame
    """columns `COLUMNS` and `group:<name>` strings; split null: to be made; label: raw label; where: file and line"""
    dropped: pl.DataFrame
    """columns `DROPPED`: posts that the reader had to leave out"""
    truth: pl.DataFrame | None = None
    """columns `TRUTH`, planted data only"""
    notes: dict[str, int] = dataclasses.field(default_factory=dict)
    """what the reader mended or found odd, counted"""


def frame_of(rows: Sequence[dict[str, Any]], groups: Iterable[str] = ()) -> pl.DataFrame:
    """Rows as a frame with all of `COLUMNS` and the group columns; keys a row lacks are null."""
    return pl.DataFrame(rows, schema=COLUMNS | {GROUP + name: pl.String for name in groups}, orient="row")


def dropped_of(rows: Sequence[tuple[str, str, str]]) -> pl.DataFrame:
    """(id, reason, where) rows as a frame."""
    return pl.DataFrame(rows, schema=DROPPED, orient="row")


def clean(text: str) -> str:
    """`text` with lone surrogates and NULs, which no file format stores, as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")


def read_json_file(path: Path, what: str) -> Any:
    """Parses a JSON file that a data set must have.

    Raises:
        UserError: the file is absent, is not UTF-8 or is not JSON; says the line.
    """
    try:
        return json.loads(needed(path, what).read_bytes())
    except UnicodeDecodeError as error:
        raise UserError(f"{what} is not UTF-8 text", where=f"{path}, byte {error.start}", fix="fetch the file again") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{what} is not valid JSON: {error.msg}", where=f"{path}, line {error.lineno}", fix="fetch the file again") from None


def needed(path: Path, what: str) -> Path:
    """`path` where it is a file, else a `UserError` that lists what lies in its folder."""
    if path.is_file():
        return path
    folder = next(parent for parent in path.parents if parent.is_dir())
    there = sorted(entry.name for entry in folder.iterdir())
    listing = ", ".join(there[:12]) + (f" and {len(there) - 12} more" if len(there) > 12 else "")
    raise UserError(
        f"{what} is missing: {path}",
        where=f"{folder} holds: {listing or 'nothing'}",
        fix="check `sources` (path, into) of the data set in params.yaml; docs/data.md shows each layout",
    )
