"""A user's own table: CSV, TSV, JSONL or Parquet, one post a row, `columns` saying what is where.

Rows that cannot be read are named with their line and left out; mistakes that concern the whole table end the run.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from causalroute.config import Columns, Dataset
from causalroute.data.records import GROUP, Records, clean, dropped_of, frame_of, needed
from causalroute.errors import UserError

SPLITS = {"test": "id", "val": "valid", "dev": "valid", "validation": "valid"}
LONGEST_CELL = 1 << 24
Row = tuple[int, dict[str, str | None] | str]
"""(line or row number, the cells by column name, or the reason why the row cannot be read)"""


def read(root: Path, dataset: Dataset) -> Records:
    """Reads `dataset.table` inside `root`.

    Raises:
        UserError: no such file, unknown ending, missing columns, not text, or most rows unreadable.
    """
    path = root / dataset.table
    if PurePosixPath(dataset.table).is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"the table {dataset.table!r} leaves the raw folder", where="params.yaml: table", fix="name it relative to the raw folder")
    return read_table(path, dataset.columns)


def read_table(path: Path, columns: Columns) -> Records:
    """Reads the table at `path`.

    Raises:
        UserError: as `read`.
    """
    names, cells = open_table(path)
    _check_columns(names, columns, str(path))
    rows: list[dict[str, Any]] = []
    dropped: list[tuple[str, str, str]] = []
    for number, row in cells:
        where = f"{path.name}, {'row' if path.suffix.lower() == '.parquet' else 'line'} {number}"
        if isinstance(row, str):
            dropped.append(("", row, where))
        else:
            rows.append(_post(row, columns, str(len(rows) + len(dropped) + 1)) | {"where": where})
    if len(dropped) > len(rows):
        raise UserError(
            f"{len(dropped)} of {len(rows) + len(dropped)} rows cannot be read ({dropped[0][1]})",
            where=dropped[0][2],
            fix="check the file's format; text must be UTF-8",
        )
    return Records(frame_of(rows, columns.groups), dropped_of(dropped))


def open_table(path: Path) -> tuple[list[str], Iterator[Row]]:
    """Column names of the table at `path`, and its rows.

    Raises:
        UserError: no such file, unknown ending, or no table.
    """
    readers: dict[str, Callable[[Path], tuple[list[str], Iterator[Row]]]] = {
        ".csv": _csv,
        ".tsv": _tsv,
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".parquet": _parquet,
    }
    if path.suffix.lower() not in readers:
        raise UserError(f"the ending of the table {path.name!r} is unknown", where=str(path), fix=f"save it as one of {', '.join(readers)}")
    return readers[path.suffix.lower()](needed(path, "the table"))


def _check_columns(names: list[str], columns: Columns, where: str) -> None:
    wanted = {"text": columns.text, "image": columns.image, "label": columns.label, "id": columns.id, "split": columns.split}
    wanted |= {f"groups[{index}]": name for index, name in enumerate(columns.groups)}
    for key, name in wanted.items():
        if (name or key in ("text", "label")) and name not in names:
            hint = next(iter(difflib.get_close_matches(name, names, n=1)), None)
            absent = "; where the data has no images write `image: ''`" if key == "image" else ""
            fix = f"set columns.{key} to the right name{f', perhaps {hint!r}' if hint else ''}{absent}"
            raise UserError(f"the table has no column {name!r}; it has {names}", where=f"{where} (columns.{key})", fix=fix)


def _post(row: dict[str, str | None], columns: Columns, number: str) -> dict[str, Any]:
    def cell(name: str) -> str | None:
        value = row.get(name) if name else None
        return clean(value) if value is not None else None

    split = (cell(columns.split) or "").strip().lower() if columns.split else None
    post: dict[str, Any] = {"id": (cell(columns.id) or "").strip() if columns.id else number, "split": SPLITS.get(split, split) if split is not None else None}
    post |= {"text": cell(columns.text) or "", "image": (cell(columns.image) or "").strip() or None, "label": (cell(columns.label) or "").strip() or None}
    return post | {GROUP + name: cell(name) for name in columns.groups}


def _csv(path: Path, delimiter: str = ",") -> tuple[list[str], Iterator[Row]]:
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError("the table is UTF-16 text", where=str(path), fix="save it as UTF-8 (in Excel: 'CSV UTF-8')")
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.StringIO(raw.decode("utf-8-sig", "surrogateescape"), newline=""), delimiter=delimiter, strict=True)
    names = _header(reader, path)
    return names, _csv_rows(reader, names, path)


def _tsv(path: Path) -> tuple[list[str], Iterator[Row]]:
    return _csv(path, "\t")


def _header(reader: Any, path: Path) -> list[str]:
    names = [name.strip() for name in next(reader, [])]
    if not names or len(set(names)) < len(names):
        what = "names a column twice" if names else "is empty"
        raise UserError(f"the table {what}", where=f"{path}, line 1", fix="the first line names the columns, each once")
    return names


def _csv_rows(reader: Any, names: list[str], path: Path) -> Iterator[Row]:
    line = reader.line_num + 1
    try:
        for cells in reader:
            if len(cells) not in (0, len(names)):
                yield line, "wrong_number_of_cells"
            elif any("\udc80" <= character <= "\udcff" for cell in cells for character in cell if character >= "\ud800"):
                yield line, "not_utf8"
            elif cells:
                yield line, dict(zip(names, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        fix = 'a cell that contains quotes must be quoted and its quotes doubled: "she said ""hi"""; JSONL avoids the matter'
        raise UserError(f"the table cannot be read: {error}", where=f"{path}, the row that begins on line {line}", fix=fix) from None


def _jsonl(path: Path) -> tuple[list[str], Iterator[Row]]:
    rows: list[Row] = []
    names: dict[str, None] = {}
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            rows.append((number, "not_utf8"))
            continue
        except (json.JSONDecodeError, RecursionError):
            rows.append((number, "not_json"))
            continue
        if not isinstance(row, dict):
            rows.append((number, "not_an_object"))
            continue
        names |= dict.fromkeys(row)
        rows.append((number, {key: _text(value) for key, value in row.items()}))
    return list(names), iter(rows)


def _text(value: Any) -> str | None:
    """A cell as text: 1.0 and 1 and "1" are the same label."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value) if isinstance(value, bool | list | dict) else str(value)


def _parquet(path: Path) -> tuple[list[str], Iterator[Row]]:
    import polars as pl
    from polars import selectors

    try:
        lazy = pl.scan_parquet(path)
        names = lazy.collect_schema().names()
        frame = lazy.select(~(selectors.binary() | selectors.nested())).collect()  # image bytes and the like are not ours to load
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"the table is not a readable Parquet file: {str(error).splitlines()[0][:200]}", where=str(path), fix="write it again") from None
    return names, ((number, {key: _text(value) for key, value in row.items()}) for number, row in enumerate(frame.iter_rows(named=True), start=1))
