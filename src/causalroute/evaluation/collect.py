"""Reads `predictions.parquet` (long: id, seed, split, view, label, p, ...) of every method and seed into arrays.

Checks that methods and seeds answered the same items, so that everything after it may pair them.
Letters: S seeds, N items, C classes, E experts or gates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute import layout
from causalroute.config import Dataset, Replicates
from causalroute.errors import UserError
from causalroute.evaluation.metrics import Array, Items

SPLITS = ("valid", "id", "ood", "neutral", "clean")
TESTS = SPLITS[1:]
"""Test splits, in the order of tables; clean: posts without the injected cues."""
EFFECTS = ("te", "nde_t", "nde_v", "nde_tv")
TIP = 1e-6
GATES = ("keep", "T", "V", "TV")


@dataclass(frozen=True)
class Answers:
    """One method on one split, seeds in order: ids (N,), items, and what mediation shows: effects on the gold class (S, N), weights (S, N, E)."""

    ids: NDArray[np.str_]
    items: Items
    effects: Mapping[str, Array] = field(default_factory=dict)
    weights: Mapping[str, Array] = field(default_factory=dict)


Method = dict[str, Answers]
"""split -> answers"""


@dataclass(frozen=True)
class Facts:
    """What the data set says beside the predictions: train majority, pairs (rewrite id -> original id), planted effects (id -> value),
    shares of the classes in the train split."""

    majority: int = 0
    pairs: Mapping[str, str] = field(default_factory=dict)
    planted: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    prior: tuple[float, ...] = ()


def chunks(replicates: Replicates) -> list[tuple[int, int]]:
    """First and last seed of each training job; the last job may be shorter."""
    return [(first, min(first + replicates.per_job, replicates.seeds) - 1) for first in range(0, replicates.seeds, replicates.per_job)]


def prediction_files(dataset: str, method: str, replicates: Replicates) -> list[Path]:
    """The predictions of one method, in order of seeds."""
    return [layout.run(dataset, method, first, last) / "predictions.parquet" for first, last in chunks(replicates)]


def read_method(files: Sequence[Path], seeds: Sequence[int], dataset: Dataset) -> Method:
    """One method's predictions by split.

    Raises:
        UserError: a file, seed or item is missing, or a probability is none.
    """
    for file in files:
        if not file.is_file():
            raise UserError("predictions are missing", where=str(file), fix="run the workflow again: its evaluate rule writes this file")
    frame = pl.concat([pl.read_parquet(file) for file in files], how="vertical")
    where = str(files[0])
    if sorted(frame["seed"].unique().to_list()) != sorted(seeds):
        raise UserError(f"seeds {sorted(frame['seed'].unique().to_list())} found where {list(seeds)} are configured", where=where, fix="run the workflow again")
    present = [split for split in SPLITS if (frame["split"] == split).any()]
    return {split: _answers(frame.filter(pl.col("split") == split), len(seeds), dataset, f"{where}, split {split}") for split in present}


def _answers(frame: pl.DataFrame, seeds: int, dataset: Dataset, where: str) -> Answers:
    factual = frame.filter(pl.col("view") == "factual").sort("seed", "id")
    first = factual.head(factual.height // seeds) if seeds else factual
    ids = first["id"].to_numpy().astype(np.str_)
    if factual.height != seeds * len(ids) or not (np.tile(ids, seeds) == factual["id"].to_numpy().astype(np.str_)).all():
        raise UserError(
            "the seeds did not answer the same items once each", where=where, fix="delete the training folder of this method and run the workflow again"
        )
    labels = _labels(first, dataset, where)
    p = _cube(factual["p"], seeds, len(ids), len(dataset.classes), where)
    positive = dataset.classes.index(dataset.positive) if dataset.positive and len(dataset.classes) == 2 else None
    given = {
        name.removeprefix("group:"): first[name].fill_null("").cast(pl.String).to_numpy().astype(np.str_) for name in first.columns if name.startswith("group:")
    }
    unparsed = factual["unparsed"].to_numpy().reshape(seeds, len(ids)) if "unparsed" in factual.columns else None
    p = p if unparsed is None else charged(p, labels, unparsed)
    items = Items(labels=labels, p=p, unparsed=unparsed, views=_views(frame, ids, seeds, len(dataset.classes), where), groups=given, positive=positive)
    return Answers(ids, items, _effects(factual, items), _weights(factual, seeds, len(ids)))


def charged(p: Array, labels: NDArray[np.int64], unparsed: NDArray[np.bool_]) -> Array:
    """Probabilities (S, N, C) of answers that count as wrong where they name no class.

    Such an answer is uniform, and a tie would go to the first class, right or not. So a millionth of p is taken from the label: every metric that looks at the
    likeliest class sees a wrong answer, and those of probabilities see a uniform one.
    """
    classes = p.shape[-1]
    at_label = np.eye(classes)[labels]  # (N, C)
    return np.where(unparsed[..., None], 1 / classes - TIP * at_label + TIP / (classes - 1) * (1 - at_label), p)


def _labels(first: pl.DataFrame, dataset: Dataset, where: str) -> NDArray[np.int64]:
    known = first["label"].is_between(0, len(dataset.classes) - 1).fill_null(False)
    if not known.all():
        odd = first.filter(~known)["id"][0]
        raise UserError(f"item {odd!r} has no label among the {len(dataset.classes)} classes", where=where, fix="check label_map and classes of the data set")
    return first["label"].to_numpy().astype(np.int64)


def _cube(column: pl.Series, seeds: int, items: int, width: int, where: str) -> Array:
    """A list column of rows (seed, id) -> (S, N, width) probabilities."""
    if not (column.list.len() == width).all():
        raise UserError(f"a row does not hold {width} probabilities", where=where, fix="the class list changed: run the workflow again")
    p = column.explode().to_numpy().astype(np.float64).reshape(seeds, items, width)
    if not np.isfinite(p).all() or (p < 0).any() or np.abs(p.sum(-1) - 1).max(initial=0.0) > 1e-3:
        raise UserError("a row of p is no probability distribution", where=where, fix="the training diverged: look at history.csv, lower train.lr")
    return p


def _views(frame: pl.DataFrame, ids: NDArray[np.str_], seeds: int, classes: int, where: str) -> dict[str, Array]:
    """(S, N, C) of every other view, NaN for items it lacks."""
    found = {}
    for view in sorted(set(frame["view"].unique().to_list()) - {"factual"}):
        part = frame.filter(pl.col("view") == view).sort("seed", "id")
        some = part["id"].to_numpy().astype(np.str_)[: part.height // seeds]
        if part.height != seeds * len(some):
            raise UserError(f"the seeds did not answer the same items under view {view!r}", where=where, fix="run the workflow again")
        cube = np.full((seeds, len(ids), classes), np.nan)
        cube[:, np.searchsorted(ids, some)] = _cube(part["p"], seeds, len(some), classes, where)
        found[view] = cube
    return found


def _effects(factual: pl.DataFrame, items: Items) -> dict[str, Array]:
    """Effects on the gold class, (S, N), and where all are there what follows from them (INT, TIE); nothing for methods without mediation."""
    seeds, count, classes = items.p.shape
    found = {}
    for name in EFFECTS:
        if name in factual.columns and factual[name].null_count() == 0:
            cube = factual[name].explode().to_numpy().astype(np.float64).reshape(seeds, count, classes)
            found[name] = np.take_along_axis(cube, items.labels[None, :, None], axis=-1)[..., 0]
    if found.keys() == set(EFFECTS):
        found |= {"int": found["nde_tv"] - found["nde_t"] - found["nde_v"], "tie": found["te"] - found["nde_tv"]}
    return found


def _weights(factual: pl.DataFrame, seeds: int, count: int) -> dict[str, Array]:
    """Gates and expert weights, (S, N, E)."""
    found: dict[str, Array] = {}
    for name in ("gates", "experts"):
        if name in factual.columns and factual[name].null_count() == 0:
            found[name] = factual[name].explode().to_numpy().astype(np.float64).reshape(seeds, count, -1)
    return found


def read_all(name: str, dataset: Dataset, replicates: Replicates) -> dict[str, Method]:
    """Every method of the data set, in the order of its list; all on the same items.

    Raises:
        UserError: see `read_method`; also when two methods answered different items.
    """
    seeds = list(range(replicates.seeds))
    found: dict[str, Method] = {}
    for method in dataset.methods:
        found[method] = read_method(prediction_files(name, method, replicates), seeds, dataset)
        first = next(iter(found.values()))
        same = found[method].keys() == first.keys() and all(np.array_equal(found[method][s].ids, first[s].ids) for s in first)
        if not same or any((found[method][s].items.labels != first[s].items.labels).any() for s in first):
            raise UserError(
                f"{method} and {next(iter(found))} were not evaluated on the same items",
                where=f"models/{name}",
                fix="run the workflow again: one of them is stale",
            )
    return found


def stored_numbers(name: str, dataset: Dataset, replicates: Replicates) -> dict[str, int]:
    """Method -> how many numbers one seed of it stores: trained parameters, and the tables of methods fitted in one go.

    Only the headers of the weights files are read.

    Raises:
        UserError: a weights file is missing.
    """
    from safetensors import safe_open

    found = {}
    first, last = chunks(replicates)[0]
    for method in dataset.methods:
        file = layout.run(name, method, first, last) / "weights.safetensors"
        if not file.is_file():
            raise UserError("the weights are missing", where=str(file), fix="run the workflow again: its train rule writes this file")
        with safe_open(file, framework="numpy") as weights:
            shapes = [weights.get_slice(key).get_shape() for key in weights.keys() if key.startswith(f"seed{first}/")]  # noqa: SIM118
        found[method] = sum(math.prod(shape) for shape in shapes)
    return found
