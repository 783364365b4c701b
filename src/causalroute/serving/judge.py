"""How good a saved model is on a labelled table: metrics with intervals over posts, each class, each group, and the debiased against the biased model.

The formulas are those of the report (`evaluation.metrics`, `evaluation.statistics`). A saved model is one predictor, the mean of its seeds, so an interval
here is over posts alone: it does not tell what other training seeds would give.
Letters: N posts, C classes; S = 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from causalroute.audit.table import Table, check, choose
from causalroute.config import Evaluate
from causalroute.data.formats.table import read_table
from causalroute.data.images import ImageError, open_image
from causalroute.data.manifest import stop_if_hopeless
from causalroute.data.records import DROPPED, GROUP
from causalroute.errors import UserError
from causalroute.evaluation import groups, metrics, statistics
from causalroute.evaluation.metrics import Items, Metric
from causalroute.evaluation.statistics import Sample
from causalroute.serving.predictor import ROUND, Predictor

COMPARED = ("accuracy", "f1_macro", "worst_group")
"""Metrics by which the debiased model is compared with the biased one."""
OF_CLASS = ("precision", "recall", "f1")


@dataclasses.dataclass(frozen=True)
class Rows:
    """The usable posts of a table: `frame` has id, text, image, label (a class number) and group columns."""

    table: Table
    frame: pl.DataFrame
    dropped: pl.DataFrame
    """rows left out (columns id, reason, where)"""
    notes: tuple[str, ...]
    total: int


@dataclasses.dataclass(frozen=True)
class Answers:
    """Probabilities (N, C) of the debiased and, where the model has one, the biased predictor; `rows` are those that could be answered."""

    rows: Rows
    p: metrics.Array
    biased: metrics.Array | None


def read(table: Table, classes: Sequence[str], *, only: str = "", families: Sequence[str] = ()) -> Rows:
    """Reads a labelled table as `causalroute audit` does; the split column is not looked at.

    Args:
        table: where it is and what is said of its columns.
        classes: those of the model; rows with other labels are left out.
        only: `COLUMN=VALUE`: rows with another value are not looked at; empty: all are.
        families: columns whose values are groups.

    Raises:
        UserError: no such table or column, most rows unusable, or no row is left.
    """
    if not table.path.is_file():
        raise UserError("there is no such table", where=str(table.path), fix="name a CSV, TSV, JSONL or Parquet file")
    column, _, value = only.partition("=")
    if only and not (column and value):
        raise UserError(f"--only {only!r} names no rows", where="--only", fix="write COLUMN=VALUE, such as --only split=test")
    columns, notes = choose(dataclasses.replace(table, split="", metadata=tuple(families)))
    asked = dict.fromkeys([*families, *([column] if only else [])])
    records = read_table(table.path, dataclasses.replace(columns, groups=tuple(asked)))
    kept = records.frame.filter((pl.col(GROUP + column) == value).fill_null(False)) if only else records.frame
    kept = kept.drop(GROUP + name for name in asked if name not in families)
    frame, _, dropped = check(dataclasses.replace(records, frame=kept), tuple(classes))
    stop_if_hopeless(kept.height, dropped)
    if not frame.height:
        fix = f"the classes of the model are {list(classes)}; --label names the column, --only the rows"
        raise UserError("no row can be used", where=str(table.path), fix=fix)
    return Rows(table, frame, dropped, tuple(notes), kept.height + records.dropped.height)


def answer(predictor: Predictor, rows: Rows) -> Answers:
    """What the model says of every post; a post whose image cannot be used is left out and listed.

    Raises:
        UserError: as the predictor, or every image is unusable.
    """
    kept: list[bool] = []
    lost: list[tuple[str, str, str]] = []
    found: list[Any] = []
    for batch in _batches(rows.frame, ROUND):
        posts, sound, bad = _posts(batch, rows, str(predictor.config.get("visual", "image")))
        kept, lost = kept + sound, lost + bad
        found += predictor.predict(posts) if posts else []
    if not found:
        raise UserError("no post can be answered", where=lost[0][2], fix="--root FOLDER is what image paths are relative to; --image '' leaves images out")
    classes = predictor.classes
    p = np.array([[one.probabilities[name] for name in classes] for one in found])
    biased = np.array([[one.biased[name] for name in classes] for one in found]) if all(one.biased for one in found) else None
    dropped = pl.concat([rows.dropped, pl.DataFrame(lost, schema=DROPPED, orient="row")])
    return Answers(dataclasses.replace(rows, frame=rows.frame.filter(pl.Series(kept, dtype=pl.Boolean)), dropped=dropped), p, biased)


def _batches(frame: pl.DataFrame, size: int) -> Iterator[list[dict[str, Any]]]:
    for part in frame.iter_slices(size):
        yield list(part.iter_rows(named=True))


def _posts(batch: list[dict[str, Any]], rows: Rows, visual: str) -> tuple[list[Any], list[bool], list[tuple[str, str, str]]]:
    """Posts with decoded images, which of the batch they are, and those that cannot be used."""
    from causalroute.serving.posts import Post

    root = rows.table.root or rows.table.path.parent
    posts, sound, lost = [], [], []
    for row in batch:
        try:
            image = open_image(root, row["image"]) if row["image"] and visual == "image" else None
        except ImageError as error:
            lost.append((row["id"], error.reason, f"{row['where']}: {row['image']}"))
        else:
            posts.append(Post(text=row["text"], image=image))
        sound.append(not lost or lost[-1][0] != row["id"])
    return posts, sound, lost


def judge(predictor: Predictor, answers: Answers, settings: Evaluate) -> dict[str, Any]:
    """The whole verdict, ready for JSON: metrics, classes, groups, and the biased model beside the debiased one."""
    rows, classes = answers.rows, predictor.classes
    items = _items(answers.p, rows)
    wanted, per_class = _overall(str(predictor.config.get("task", ""))), _of_classes(classes)
    judged = groups.judged_cells(items.groups)
    by_group = metrics.group_metrics(groups.cells(items.groups), judged)
    every = [*wanted, *per_class, *by_group]
    draw = partial(statistics.weights, rows.frame.height, settings.bootstrap, settings.seed, "judge")
    samples = statistics.resample(items, every, draw)
    told = {metric.name: _estimate(samples[metric.name], metric, settings) for metric in every}
    verdict: dict[str, Any] = {
        "table": rows.table.path.name,
        "rows": rows.total,
        "used": rows.frame.height,
        "confidence": settings.confidence,
        "notes": [*rows.notes, *_blind(predictor, rows)],
        "dropped": dict(sorted(rows.dropped["reason"].value_counts().iter_rows())),
        "method": predictor.config.get("method", ""),
        "metrics": {metric.name: told[metric.name] for metric in wanted},
        "classes": {label: _class(told, items, label, number) for number, label in enumerate(classes)},
        "groups": _groups(told, items),
        "worst_group": told["worst_group"] | {"group": _worst(told, judged)} if judged else None,
        "biased": None,
    }
    return verdict | ({"biased": _against(predictor, answers, [*wanted, *by_group], samples, draw, settings)} if answers.biased is not None else {})


def _items(p: metrics.Array, rows: Rows) -> Items:
    labels = rows.frame["label"].to_numpy().astype(np.int64)
    families = {name.removeprefix(GROUP): rows.frame[name].fill_null("").to_numpy().astype(np.str_) for name in rows.frame.columns if name.startswith(GROUP)}
    return Items(labels=labels, p=p[None], groups={name: values for name, values in families.items() if (values != "").any()})


def _overall(task: str) -> list[Metric]:
    known = metrics.registry()
    return [known[name] for name in ("accuracy", "f1_macro", *(["f1_weighted"] if task == "sentiment" else []), "ece")]


def _of_classes(classes: Sequence[str]) -> list[Metric]:
    found = []
    for number, label in enumerate(classes):
        known = metrics.registry(number)
        found += [dataclasses.replace(known[f"{name}_positive"], name=f"class {label}\0{name}") for name in OF_CLASS]
    return found


def _estimate(sample: Sample, metric: Metric, settings: Evaluate) -> dict[str, Any]:
    found = statistics.estimate(sample, settings.confidence, metric.bounds, share=metric.share, bias=metric.bias)
    return {"value": found.mean, "low": found.low, "high": found.high}


def _class(told: Mapping[str, Any], items: Items, label: str, number: int) -> dict[str, Any]:
    return {"posts": int((items.labels == number).sum()), **{name: told[f"class {label}\0{name}"] for name in OF_CLASS}}


def _groups(told: Mapping[str, Any], items: Items) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for family, name in groups.cells(items.groups):
        found.setdefault(family, {})[name] = {"posts": int((items.groups[family] == name).sum()), "accuracy": told[f"{family}/{name}"]}
    return found


def _worst(told: Mapping[str, Any], judged: Sequence[tuple[str, str]]) -> str:
    family, name = min(judged, key=lambda cell: told["/".join(cell)]["value"])
    return f"{family}: {name}"


def _against(predictor: Predictor, answers: Answers, wanted: Sequence[Metric], ours: Mapping[str, Sample], draw: Any, settings: Evaluate) -> dict[str, Any]:
    """The biased model's metrics, and debiased minus biased on the same posts and resamples."""
    assert answers.biased is not None
    items, theirs = _items(answers.p, answers.rows), _items(answers.biased, answers.rows)
    samples = statistics.resample(theirs, wanted, draw)
    found: dict[str, Any] = {"method": predictor.config.get("reference", ""), "metrics": {}, "difference": {}}
    for metric in wanted:
        if metric.name in COMPARED:
            found["metrics"][metric.name] = _estimate(samples[metric.name], metric, settings)
            paired = statistics.difference(ours[metric.name], samples[metric.name], settings.confidence)
            found["difference"][metric.name] = dataclasses.asdict(paired)
    mine, biased, p = statistics.mcnemar(items.hits[0], theirs.hits[0])
    return found | {"mcnemar": {"only_debiased_right": mine, "only_biased_right": biased, "p": p}}


def _blind(predictor: Predictor, rows: Rows) -> list[str]:
    """What the model does not look at, though it is there or was there in training."""
    visual = predictor.config.get("visual", "image")
    if visual == "attributes":
        return ["the visual side of the model is attribute words, which a table does not have: posts are judged by their text alone"]
    if visual == "none" and rows.frame["image"].is_not_null().any():
        return ["the model was trained without images: those of the table are not looked at"]
    return []
