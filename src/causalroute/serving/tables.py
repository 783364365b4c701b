"""Predictions for every row of a table: no row is lost, one that cannot be read says why."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from causalroute import io as files
from causalroute.data.formats.table import open_table
from causalroute.data.images import open_image
from causalroute.errors import UserError
from causalroute.features.progress import Progress
from causalroute.serving.posts import Post, Prediction
from causalroute.serving.predictor import ROUND, Predictor

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what; "" means that there is none."""

    text: str = ""
    image: str = ""
    id: str = ""
    attributes: str = ""


@dataclass(frozen=True)
class Answered:
    """One row of the table."""

    id: str
    """of its column, else its number from 1 on"""
    prediction: Prediction | None
    error: str
    """why there is no prediction; empty where there is one"""


def answer_table(predictor: Predictor, table: Path, columns: Columns, root: Path, *, explain: bool = False) -> list[Answered]:
    """Answers to all rows, in their order; progress is told on standard error.

    Args:
        predictor: a saved model.
        table: CSV, TSV, JSONL or Parquet.
        columns: what is where.
        root: folder that image paths are relative to; none may leave it.
        explain: as in `Predictor.predict`.

    Raises:
        UserError: the table cannot be read, or lacks a column.
    """
    names, cells = open_table(table)
    for key, name in vars(columns).items():
        if name and name not in names:
            raise UserError(f"the table has no column {name!r}", where=str(table), fix=f"name the {key} column; the table has {names}")
    rows = list(cells)
    progress = Progress(len(rows), "posts")
    answered: list[Answered] = []
    for first in range(0, len(rows), ROUND):
        answered += _answers(predictor, [_read(row, number, columns, root) for number, row in rows[first : first + ROUND]], explain)
        progress.update(min(ROUND, len(rows) - first))
    progress.close()
    return answered


def _read(row: dict[str, str | None] | str, number: int, columns: Columns, root: Path) -> tuple[str, Post | str]:
    """Id, and the post or why there is none."""
    if isinstance(row, str):
        return str(number), f"the row cannot be read: {row}"
    text, image, name, attributes = ((row.get(column) or "") if column else "" for column in (columns.text, columns.image, columns.id, columns.attributes))
    try:
        picture = open_image(root, image.strip()) if image.strip() else None
    except UserError as error:
        return name or str(number), str(error).replace("\n", " ")
    return name or str(number), Post(text, picture, attributes or None)


def _answers(predictor: Predictor, rows: list[tuple[str, Post | str]], explain: bool) -> list[Answered]:
    """One round. Where a post has nothing that the model reads, it alone is left without an answer."""
    readable = [post for _, post in rows if isinstance(post, Post) and predictor.reads(post)]
    found = iter(predictor.predict(readable, explain=explain))
    answered = []
    for name, post in rows:
        if isinstance(post, str):
            answered.append(Answered(name, None, post))
        elif not predictor.reads(post):
            answered.append(Answered(name, None, "nothing that this model reads"))
        else:
            answered.append(Answered(name, next(found), ""))
    return answered


def write(answered: list[Answered], path: Path) -> None:
    """Writes the answers, in the format that the ending of `path` names.

    Raises:
        UserError: an ending that is not known.
    """
    if path.suffix not in ENDINGS:
        raise UserError(f"the ending of {path.name!r} is unknown", where=str(path), fix=f"choose one of {', '.join(ENDINGS)}")
    if path.suffix == ".parquet":
        files.write_parquet(path, frame(answered))
    else:
        files.write_text(path, "".join(lines(answered, path.suffix[1:])))


def lines(answered: list[Answered], kind: str) -> Iterator[str]:
    """The answers as text: jsonl with everything, csv or tsv with the columns of `frame`."""
    if kind == "jsonl":
        for one in answered:
            yield json.dumps({"id": one.id, "error": one.error} | (one.prediction.as_dict() if one.prediction else {}), ensure_ascii=False) + "\n"
        return
    buffer = io.BytesIO()
    frame(answered).write_csv(buffer, separator="\t" if kind == "tsv" else ",")
    yield buffer.getvalue().decode()


def frame(answered: list[Answered]) -> pl.DataFrame:
    """One row each: id, label, p:<class>, spread, biased_label, biased:<class>, where asked for effects (TE:<class> ...), gates, experts and the words of
    the context, then warnings and error."""
    rows = [{"id": one.id} | (_flat(one.prediction) if one.prediction else {}) | {"error": one.error} for one in answered]
    first: dict[str, Any] = max(rows, key=len, default={"id": None, "error": None})
    kinds = {key: pl.String if isinstance(value, str) or value is None else pl.Float64 for key, value in first.items()}
    return pl.DataFrame(rows, schema=kinds, orient="row")


def _flat(found: Prediction) -> dict[str, Any]:
    flat: dict[str, Any] = {"label": found.label} | {f"p:{name}": p for name, p in found.probabilities.items()} | {"spread": found.spread}
    if found.biased is not None:
        flat |= {"biased_label": found.biased_label} | {f"biased:{name}": p for name, p in found.biased.items()}
    if (why := found.explanation) is not None:
        flat |= {f"{effect}:{name}": value for effect, values in why.effects.items() for name, value in values.items()}
        flat |= {f"gate:{name}": value for name, value in why.gates.items()} | {f"expert:{name}": value for name, value in why.experts}
        flat |= {"context": " ".join(word.text for word in why.words if word.context)}
    return flat | {"warnings": "; ".join(found.warnings)}
