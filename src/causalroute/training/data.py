"""Reads the manifest, the cached features and the accepted flags into tensors.

Features are standardised with the mean and standard deviation of the factual train features of each side; the same numbers serve all views of the side
and are stored with the weights. They stay in their files, mapped into memory, and a batch is standardised when it is read. Joint features
(`causalroute.pairs`), where the backbone has any, are a third side, read wherever both views of a pair are.

Letters: N items wanted, D width, K swaps per item.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from causalroute import layout, methods
from causalroute.config import Dataset
from causalroute.errors import UserError
from causalroute.io import ids_digest, read_json
from causalroute.methods.base import Posts
from causalroute.model.view import View
from causalroute.pairs import EDITED_PAIRS, HELD_PAIRS, NAME_OF, NOTHING, score_name
from causalroute.stored.reading import HELD, FeatureFile, Standardised

log = logging.getLogger(__name__)
CONTEXT, CORE, SWAPS = ("t_s", "v_s"), ("t_c", "v_c"), ("t_swap", "v_swap")
TRAIN_VIEWS = (*CONTEXT, *SWAPS)
ALL_VIEWS = (*CONTEXT, *CORE, *SWAPS)
HELD_JOINT = {name: NAME_OF[HELD.get(text, text), HELD.get(image, image)] for name, (text, image) in HELD_PAIRS.items()}
"""The same of their joint features."""
NO_POST = score_name(NOTHING)
FACTUAL_SCORES = (*map(score_name, ("k", "t", "v")), NO_POST)
COLUMNS = 64
"""Features whose mean is taken at a time: a column's sum is the same in company or alone, as long as there are several."""
SOURCE = "group:source"
"""Column of planted data of several sources."""


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation per feature of both sides and, where there are any, of the joint features."""

    t_mean: Tensor
    t_std: Tensor
    v_mean: Tensor
    v_std: Tensor
    k_mean: Tensor | None = None
    k_std: Tensor | None = None

    def apply(self, name: str, x: Tensor) -> Tensor:
        """A view (..., D), named t*, v* or k*, as standardised float32."""
        tensors = self.tensors()
        return x.float().sub(tensors[f"{name[0]}_mean"]).div_(tensors[f"{name[0]}_std"])

    def view(self, name: str, file: FeatureFile, stored: str = "") -> Standardised:
        """The view `name` of a file, in which it may have another name."""
        return Standardised(file.whole(stored or name), file.place, partial(self.apply, name))

    def tensors(self) -> dict[str, Tensor]:
        """By field name, as far as they are there."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Files:
    """The files one method reads."""

    manifest: Path
    factual: Path
    views: Path | None
    counterfactuals: Path | None
    gate: Path | None
    held: Path | None = None

    @classmethod
    def of(cls, dataset: str, backbone: str, editor: str | None, held_out: str = "") -> Files:
        """Paths by the layout; no editor means factual features alone; `held_out` is an editor whose swaps serve evaluation."""
        views = layout.features(dataset, backbone, editor) if editor else None
        counterfactuals = layout.counterfactuals(dataset, editor) if editor else None
        gate = layout.gate(dataset, editor) if editor else None
        held = layout.features(dataset, backbone, held_out) if held_out else None
        return cls(layout.manifest(dataset), layout.features(dataset, backbone, "factual"), views, counterfactuals, gate, held)

    def existing(self) -> list[Path]:
        """All of them.

        Raises:
            UserError: when one is missing.
        """
        wanted = [path for path in (self.manifest, self.factual, self.views, self.counterfactuals, self.gate, self.held) if path]
        for path in wanted:
            if not path.is_file():
                raise UserError("a file that training needs is missing", where=str(path), fix="run the whole pipeline (make reproduce), which makes it first")
        return wanted


def training_posts(name: str, dataset: Dataset, method: str) -> tuple[Files, Posts, Standard]:
    """What a method learns from on the data set `name`, and the files it was read from.

    Raises:
        UserError: the method wants counterfactuals of posts that have none; or see `load_posts`.
    """
    roles = dict(methods.load(method).Method.split_roles)
    editor = methods.editor_of(method, dataset.editor)
    if editor and {"oracle_train", "oracle_valid"} & set(roles.values()):
        raise UserError("a method on the oracle splits cannot use counterfactuals: there are none of them", where=f"methods.{method}")
    files = Files.of(name, dataset.backbone, editor)
    return files, *load_posts(files, list(roles.values()), dataset.classes, roles=roles, views=TRAIN_VIEWS if editor else ())


def load_posts(
    files: Files, splits: Sequence[str], classes: Sequence[str], *, roles: Mapping[str, str], views: Sequence[str] = (), standard: Standard | None = None
) -> tuple[Posts, Standard]:
    """Loads the items of `splits`, in manifest order.

    Args:
        files: where to read.
        splits: the splits wanted; each must have items.
        classes: label names.
        roles: which split is "train" and which "valid".
        views: counterfactual views wanted beside the factual ones; their joint features come with them.
        standard: the numbers to standardise with; None computes them from the split of role "train".

    Raises:
        UserError: on an empty split, unlabelled train items, or features that do not belong to the manifest or do not fit `standard`.
    """
    files.existing()
    frame = _read(files.manifest)
    total = frame.height
    digest = ids_digest(frame["id"])
    frame = frame.filter(pl.col("split").is_in(list(splits)))
    _require_splits(frame, splits, files.manifest)
    rows = torch.from_numpy(frame["row"].to_numpy().copy()).long()
    factual = FeatureFile(files.factual, rows, total, digest)
    if standard is None:
        standard = _standard(factual, torch.from_numpy((frame["split"] == roles["train"]).to_numpy().copy()))
    joint = "k" in factual.names
    _require_same_joint(files.factual, joint, standard)
    seen: dict[str, View] = {name: standard.view(name, factual) for name in ("t", "v", "k") if name in factual.names}
    seen.setdefault("v", torch.zeros(len(rows), 0))
    scores = _scores(factual, {name: name for name in FACTUAL_SCORES}, classes)
    text_ok = image_ok = torch.zeros(len(rows), dtype=torch.bool)
    if files.views is not None and files.counterfactuals is not None and files.gate is not None:
        edited = FeatureFile(files.views, rows, total, digest)
        wanted = (*views, *(_pairs_of(views) if joint else ()))
        seen |= {name: standard.view(name, edited) for name in wanted}
        scores |= _scores(edited, {score_name(name): score_name(name) for name in (*views, *_pairs_of(views))}, classes)
        text_ok, image_ok = _accepted(files.counterfactuals, files.gate, frame["id"])
    if files.held is not None:
        held, stored = FeatureFile(files.held, rows, total, digest), HELD | HELD_JOINT
        seen |= {name: standard.view(name, held, stored[name]) for name in (stored if joint else HELD)}
        scores |= _scores(held, {score_name(name): score_name(own) for name, own in stored.items()}, classes)
    labels = torch.from_numpy(frame["label"].cast(pl.Int64).fill_null(-1).to_numpy().copy())
    if int(labels.max()) >= len(classes):
        raise UserError(f"label {int(labels.max())} has no name in classes {list(classes)}", where=str(files.manifest), fix="run prepare again")
    listed = (frame["id"].to_list(), frame["split"].to_list(), frame["text"].to_list())
    sources = frame[SOURCE].to_list() if SOURCE in frame.columns else None
    posts = Posts(*listed, labels, len(classes), seen, text_ok, image_ok, dict(roles), sources, scores, factual.replies(classes))
    return posts, standard


def _read(manifest: Path) -> pl.DataFrame:
    present = pl.read_parquet_schema(manifest)
    return pl.read_parquet(manifest, columns=["id", "split", "text", "label", *filter(present.__contains__, [SOURCE])]).with_row_index("row")


def _require_splits(frame: pl.DataFrame, splits: Sequence[str], where: Path) -> None:
    found = set(frame["split"].unique())
    for split in splits:
        if split not in found:
            raise UserError(
                f"split {split!r} has no items", where=str(where), fix="a method that needs this split cannot run on this data set: take it out of `methods`"
            )
    unlabelled = frame.filter(pl.col("split").str.contains("train|valid") & pl.col("label").is_null())
    if unlabelled.height:
        raise UserError(
            f"{unlabelled.height} items to learn from have no label", where=f"{where}: id {unlabelled['id'][0]}", fix="label them or leave them out"
        )


def _require_same_joint(path: Path, joint: bool, standard: Standard) -> None:
    if joint != (standard.k_mean is not None):
        kinds = {True: "with", False: "without"}
        raise UserError(f"features {kinds[joint]} joint ones k for a method trained {kinds[not joint]}", where=str(path), fix="train the method again")


def _pairs_of(views: Sequence[str]) -> list[str]:
    """The joint features of all pairs of these views and the factual ones."""
    there = {"t", "v", *views}
    return [name for name, pair in EDITED_PAIRS.items() if there.issuperset(pair)]


def _scores(file: FeatureFile, names: Mapping[str, str], classes: Sequence[str]) -> dict[str, Tensor]:
    """Log-likelihoods of answers, name here -> name in the file, as far as they are there; those of no post at all have one row for everybody."""
    return {name: file.scores(own, classes, everybody=name == NO_POST) for name, own in names.items() if own in file.names}


def _standard(file: FeatureFile, train: Tensor) -> Standard:
    found, place = [], file.place[train]
    for side in ("t", "v", "k") if "k" in file.names else ("t", "v"):
        stored = file.whole(side) if side in file.names else torch.zeros(len(file.place), 0)
        columns = [_moments(part[place]) for part in stored.split(COLUMNS, 1)]
        found += [torch.cat(numbers) for numbers in zip(*columns, strict=True)]
    return Standard(*found)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the columns of (N, D)."""
    x = x.float()
    mean = x.mean(0)
    std = (x - mean).square().mean(0).sqrt()
    # A feature that never varies is only centred.
    return mean, torch.where(std > 1e-6, std, torch.ones_like(std))


def _accepted(path: Path, gate: Path, ids: pl.Series) -> tuple[Tensor, Tensor]:
    """Which swaps can be used: none of a side that did not pass the gate."""
    flags = pl.DataFrame({"id": ids}).join(pl.read_parquet(path, columns=["id", "text_ok", "image_ok"]), on="id", how="left", maintain_order="left")
    if flags["text_ok"].null_count() or flags["image_ok"].null_count():
        raise UserError("some items have no counterfactuals", where=str(path), fix="run the counterfactuals stage again")
    judged = read_json(gate)
    text, image = (torch.from_numpy(flags[f"{side}_ok"].to_numpy() & _passed(judged[side], side, gate)) for side in ("text", "image"))
    return text, image


def _passed(judged: Mapping[str, Any], side: str, gate: Path) -> bool:
    if not judged["passed"]:
        reasons = "; ".join(judged["reasons"])
        log.warning("no %s swap is trained on, for the editor did not pass the gate: %s (%s)", side, reasons, gate)
    return bool(judged["passed"])
