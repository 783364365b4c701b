"""What the user asked for and what the table shows -> the settings of a project, as params.yaml says them."""

from __future__ import annotations

import dataclasses
import re
import string
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from causalroute import schema
from causalroute.audit.table import Table, check, choose
from causalroute.config import Audit, Columns, Config, Evaluate, Gate, Train
from causalroute.data.formats.table import read_table
from causalroute.data.images import ImageError, resolve
from causalroute.data.manifest import NEEDED, stop_if_hopeless
from causalroute.errors import UserError
from causalroute.parsing import suggest
from causalroute.project import backbones, workflow
from causalroute.project.backbones import Chosen
from causalroute.variants import is_visual

METHODS = ("majority", "bag_of_words", "text_only", "image_only", "erm", "double_swap", "causal_moe")
ASKED = ("zero_shot", "zero_shot_debiased")
"""Rows of a multimodal LLM as it is, beside METHODS where one is the backbone."""
EDITORS: dict[str, dict[str, Any]] = {
    "single": {"text": "lexicon", "image": "saliency", "swaps": 1},
    "estimated": {"text": "lexicon", "image": "saliency", "swaps": 2},
    "rules": {"text": "surface", "image": "centre", "fill": "telea", "swaps": 1},
}
"""Editors that a user may name: `single` is two thirds of the encoding of `estimated`."""
TESTED = 300
"""Test posts wanted: a tenth of the posts where that is as many, up to a fifth of a smaller table."""
MANY = 1500
"""Posts from which on the seeds of a method are trained in two jobs side by side: with fewer, starting a second one costs more than it saves."""
SENTIMENT = {"negative", "neutral", "positive"}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the flags of `causalroute train` say."""

    table: Table
    """the table; None among its columns: guess"""
    backbone: str = "clip"
    """see `backbones.NAMES`"""
    looker: str = "clip"
    """likewise; it finds the cores of images where the backbone is a multimodal LLM, and is not looked at elsewhere"""
    methods: tuple[str, ...] = ()
    """methods to train (empty: METHODS)"""
    method: str = "causal_moe"
    """the one whose model is saved: it is trained whether or not `methods` names it"""
    seeds: int = 5
    """training seeds"""
    epochs: int = Train().epochs
    """passes over the train split"""
    changes: tuple[str, ...] = ()
    """KEY=VALUE for any key of params.yaml, dots between the levels"""


@dataclasses.dataclass(frozen=True)
class Guessed:
    """A table as it was understood."""

    columns: Columns
    notes: tuple[str, ...]
    classes: tuple[str, ...]
    used: int
    """rows that can be used"""
    dropped: dict[str, int]
    """reason -> rows left out"""


def look(table: Table, *, sees: bool = True) -> Guessed:
    """Reads a table as the audit does: columns guessed, classes found, rows that cannot be used counted.

    Args:
        table: where it is and what is said of its columns.
        sees: whether the backbone reads images; the image column is left out where it does not.

    Raises:
        UserError: no such table, no text or label column, fewer than two classes, most rows or images unusable, or a split column without a needed split.
    """
    if not table.path.is_file():
        raise UserError("there is no such table", where=str(table.path), fix="name a CSV, TSV, JSONL or Parquet file")
    columns, notes = choose(table)
    records = read_table(table.path, columns)
    frame, classes, dropped = check(records, table.classes)
    stop_if_hopeless(records.frame.height, dropped)
    if len(classes) < 2:
        raise UserError(f"the posts belong to fewer than two classes: {list(classes)}", where=str(table.path), fix="name the right column with --label")
    _check_splits(frame, columns, table.path)
    paths = frame["image"].drop_nulls().to_list()
    if columns.image and not (paths and sees):
        notes.append("the backbone reads no images: they are left out" if paths else f"column {columns.image!r} names no image")
        columns = dataclasses.replace(columns, image="")
    elif columns.image:
        _check_images(paths, table)
    return Guessed(columns, tuple(notes), classes, frame.height, dict(sorted(dropped["reason"].value_counts().iter_rows())))


def _check_splits(frame: pl.DataFrame, columns: Columns, path: Path) -> None:
    there = set(frame["split"].to_list())
    if columns.split and (missing := [split for split in NEEDED if split not in there]):
        what = f"the column {columns.split!r} has no posts for {' and '.join(missing)} (id: the ordinary test posts, also called test)"
        raise UserError(what, where=f"{path}: {', '.join(sorted(there))}", fix="mark some posts so, or let splits be made: --split ''")


def _check_images(paths: list[str], table: Table) -> None:
    """Most images must be there; single ones that are not are listed by `prepare`."""
    root = table.root or table.path.parent
    lost = [error for path in paths if (error := _problem(root, path)) is not None]
    if 2 * len(lost) > len(paths):
        fix = "--root FOLDER names the folder that image paths are relative to; --image '' leaves images out"
        raise UserError(f"{len(lost)} of {len(paths)} images cannot be used: {lost[0].what}", where=f"first: {lost[0].where}", fix=fix)


def _problem(root: Path, path: str) -> ImageError | None:
    try:
        resolve(root, path)
    except ImageError as error:
        return error
    return None


def name_of(table: Path) -> str:
    """The data set's name: the table's, in lower-case letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", table.stem.casefold()).strip("_") or "posts"


def settings(wanted: Wanted, guessed: Guessed, chosen: Chosen) -> dict[str, Any]:
    """The whole of params.yaml.

    Raises:
        UserError: an unknown method, or KEY=VALUE that is none.
    """
    methods = _methods(wanted, chosen, bool(guessed.columns.image))
    used = {chosen.name: chosen.settings}
    looking = ""
    if chosen.chats:
        eyes = backbones.looker(wanted.looker)
        looking = eyes.name if eyes.name != chosen.name else f"{eyes.name}_looker"
        used = {chosen.name: chosen.settings | {"mllm": _asked(guessed)}, looking: eyes.settings}
    name = name_of(wanted.table.path)
    values: dict[str, Any] = {
        "run": [name],
        "replicates": {"seeds": wanted.seeds, "per_job": wanted.seeds if guessed.used < MANY else (wanted.seeds + 1) // 2},
        "train": dataclasses.asdict(Train(epochs=wanted.epochs)),
        "methods": {method: {} for method in methods},
        "editors": {key: dict(editor) for key, editor in EDITORS.items()},
        "audit": dataclasses.asdict(Audit()),
        "gate": dataclasses.asdict(Gate()),
        "evaluate": dataclasses.asdict(Evaluate()),
        "datasets": {name: _dataset(wanted, guessed, chosen, methods) | ({"looker": looking} if looking else {})},
        "backbones": used,
    }
    for change in wanted.changes:
        _change(values, change)
    return values


def _asked(guessed: Guessed) -> dict[str, Any]:
    """How a multimodal LLM is asked for the class: by a letter for each, which is one token."""
    if not guessed.columns.image:
        fix = "name the column with the image paths (--image), or choose a text encoder: --backbone minilm"
        raise UserError("a multimodal LLM reads images, and the table has none", where="--backbone", fix=fix)
    if len(guessed.classes) > len(string.ascii_letters):
        what = f"{len(guessed.classes)} classes are more than there are letters to answer with"
        raise UserError(what, where="--backbone", fix="leave some out with --classes, or choose an encoder")
    letters = (string.ascii_uppercase + string.ascii_lowercase)[: len(guessed.classes)]
    listed = ", ".join(f"{letter}: {label}" for letter, label in zip(letters, guessed.classes, strict=True))
    question = f"Which of these fits the post? {listed}. Answer with the letter alone."
    return {"prompts": [{"question": question, "answers": dict(zip(guessed.classes, letters, strict=True))}]}


def _methods(wanted: Wanted, backbone: Chosen, images: bool) -> list[str]:
    known = schema.methods()
    usual = (*METHODS, *ASKED) if backbone.chats else METHODS
    chosen = list(dict.fromkeys(wanted.methods or (method for method in usual if images or not is_visual(method))))
    chosen += [wanted.method] if wanted.method not in chosen else []
    for method in chosen:
        if method.partition("@")[0] not in known:
            raise UserError(f"there is no method {method!r}", where="--methods", fix=suggest(method, known))
    return chosen


def _dataset(wanted: Wanted, guessed: Guessed, chosen: Chosen, methods: list[str]) -> dict[str, Any]:
    table, columns = wanted.table, guessed.columns
    sarcastic = next((label for label in guessed.classes if label.casefold().startswith(("sarcas", "ironic"))), "")
    task = "sarcasm" if sarcastic else "sentiment" if {label.casefold() for label in guessed.classes} <= SENTIMENT else "classification"
    share = round(min(0.2, max(0.1, TESTED / max(guessed.used, 1))), 3)
    source = {"kind": "table", "path": str(table.path.resolve())}
    source |= {"images": columns.image} if columns.image else {}
    source |= {"root": str(table.root.resolve())} if columns.image and table.root else {}
    return {
        "format": "table",
        "sources": [source],
        "table": table.path.name,
        "columns": {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(columns).items()},
        "task": task,
        "classes": list(guessed.classes),
        **({"positive": sarcastic} if sarcastic and len(guessed.classes) == 2 else {}),
        "splits": {"valid": share, "test": share, "seed": 0, "ood": "if_possible"},
        "backbone": chosen.name,
        "editor": "single",
        "held_out": "",
        "methods": methods,
    }


def _change(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"{change!r} is no setting", where="--config", fix="write KEY=VALUE with dots between the levels, such as train.lr=0.003")
    place = values
    for part in parts[:-1]:
        below = place.setdefault(part, {})
        if not isinstance(below, dict):
            raise UserError(f"{key!r}: {part!r} holds no further keys", where="--config", fix="docs/params.md lists every key")
        place = below
    try:
        place[parts[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{text!r} is no YAML value: {str(error).splitlines()[0]}", where=f"--config {key}", fix="quote it") from None


def checked(values: dict[str, Any], where: str) -> Config:
    """The settings as the workflow will read them.

    Raises:
        UserError: every wrong key at once.
    """
    return schema.check(values, root=workflow.root(), where=where)


def plan(wanted: Wanted) -> tuple[Guessed, dict[str, Any]]:
    """What the table and the flags come to; nothing is written.

    Raises:
        UserError: as `look`, `settings` and `checked`, or a backbone that does not exist.
    """
    chosen = backbones.choose(wanted.backbone)
    guessed = look(wanted.table, sees=chosen.sees)
    values = settings(wanted, guessed, chosen)
    checked(values, "the settings of this call")
    return guessed, values
