"""The errors of the method a run is about, beside those of the plain reference: how many, and the posts it is surest about.

An answer is the likeliest class of the mean over seeds. `still wrong`: both models are; `broken`: the reference is right; `mended`: the method is right where
the reference is not. Without a reference there are errors alone.
Letters: S seeds, N items, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.config import Dataset
from causalroute.counterfactual.changes import Piece, shorten, struck
from causalroute.counterfactual.pixels import unpack_mask
from causalroute.counterfactual.showcase import Line, Shot, data_uri, outlined, small
from causalroute.counterfactual.views import view_inputs, visual_side
from causalroute.evaluation.collect import TESTS, Answers
from causalroute.evaluation.scoring import REFERENCE, Results
from causalroute.report.blocks import Table, number
from causalroute.report.claims import TITLES
from causalroute.report.figures import EFFECT_NAMES
from causalroute.report.headline import subject
from causalroute.report.tables import KINDS, weight_names

KINDS_OF = ("still wrong", "broken", "mended")
ALONE = ("wrong",)
"""Kinds where there is no reference."""
EACH = 8
"""Posts of each kind and split on the page: a page of photos stays below 1 MB."""
CLASSES = 4
"""Most likely classes shown for each model."""


@dataclass(frozen=True)
class Case:
    """One post and what the two models say; `row` is its place in the split's answers."""

    split: str
    kind: str
    row: int


@dataclass(frozen=True)
class Card:
    """One post on the page."""

    post: str
    split: str
    kind: str
    label: str
    answer: str
    seeds: str
    lines: list[Line]
    shot: Shot | None
    chances: list[tuple[str, list[tuple[str, float]]]]
    """model -> class and probability, the likeliest first"""
    traits: list[tuple[str, str]]
    """effects on the post's own class, gates, experts"""


def kinds(results: Results, method: str, split: str) -> dict[str, NDArray[np.int64]]:
    """Items of each kind, the surest first: by the probability of the wrong answer, for mended posts by how much the label gained."""
    ours = results.answers[method][split]
    labels, mean = ours.items.labels, ours.items.p.mean(0)  # (N,), (N, C)
    wrong, told = mean.argmax(-1) != labels, mean.max(-1)
    other = results.answers.get(REFERENCE, {}).get(split)
    if other is None or method == REFERENCE:
        return {ALONE[0]: _ordered(wrong, told)}
    theirs = other.items.p.mean(0)
    missed = theirs.argmax(-1) != labels
    gained = np.take_along_axis(mean - theirs, labels[:, None], axis=1)[:, 0]
    parts = ((wrong & missed, told), (wrong & ~missed, told), (~wrong & missed, gained))
    return {kind: _ordered(chosen, by) for kind, (chosen, by) in zip(KINDS_OF, parts, strict=True)}


def _ordered(chosen: NDArray[np.bool_], by: NDArray[np.float64]) -> NDArray[np.int64]:
    rows = np.flatnonzero(chosen)
    return rows[np.argsort(-by[rows], kind="stable")]


def splits(results: Results, method: str) -> list[str]:
    """The test splits that the method answered."""
    return [split for split in TESTS if split in results.answers[method]]


def counts(results: Results, methods: Sequence[str]) -> Table:
    """How many posts of each kind: holds no post, so it may stand in a committed page."""
    method = subject(methods)
    found = {split: kinds(results, method, split) for split in splits(results, method)}
    rows = []
    for split, parts in found.items():
        total = len(results.answers[method][split].ids)
        rows.append((TITLES[split], number(total), *(number(len(part)) for part in parts.values())))
    header = ("posts", "all", *next(iter(found.values()), {}))
    note = f"Answers of the mean over seeds: {method}"
    note += f" beside {REFERENCE}. Still wrong: both are; broken: {REFERENCE} is right; mended: {method} alone is." if KINDS_OF[0] in header else "."
    return Table("Errors mended and broken", header, tuple(rows), note)


def cards(results: Results, dataset: Dataset, manifest: pl.DataFrame, edited: pl.DataFrame, root: Path, reference: Path) -> list[Card]:
    """Cards of the surest errors.

    Args:
        results: scored answers.
        dataset: classes and methods.
        manifest: all posts.
        edited: counterfactuals of the data set's editor, which say what it takes for context.
        root: folder of the images.
        reference: file of the reference image.
    """
    method = subject(dataset.methods)
    chosen = [
        Case(split, kind, row) for split in splits(results, method) for kind, rows in kinds(results, method, split).items() for row in rows[:EACH].tolist()
    ]
    posts = _Posts(manifest, edited, root, reference)
    return [_card(case, results, method, dataset.classes, posts) for case in chosen]


def _card(case: Case, results: Results, method: str, classes: Sequence[str], posts: _Posts) -> Card:
    ours = results.answers[method][case.split]
    post, label = str(ours.ids[case.row]), int(ours.items.labels[case.row])
    models = [method] if case.kind in ALONE else [method, REFERENCE]
    chances = {one: results.answers[one][case.split].items.p[:, case.row].mean(0) for one in models}
    right = int((ours.items.p[:, case.row].argmax(-1) == label).sum())
    answer = classes[int(chances[method].argmax())]
    seeds = f"right in {right} of {len(results.seeds)} seeds"
    shown = [(one, _likeliest(p, classes, label)) for one, p in chances.items()]
    return Card(post, case.split, case.kind, classes[label], answer, seeds, posts.lines(post), posts.shot(post), shown, _traits(ours, case.row, posts.visual))


def _likeliest(p: NDArray[np.float64], classes: Sequence[str], label: int) -> list[tuple[str, float]]:
    order = np.argsort(-p, kind="stable").tolist()
    kept = order[:CLASSES] if label in order[:CLASSES] else [*order[: CLASSES - 1], label]
    return [(classes[i], float(p[i])) for i in kept]


def _traits(answers: Answers, row: int, visual: str) -> list[tuple[str, str]]:
    """Effects on the gold class in log-odds, gates and experts, each the mean over seeds."""
    found = []
    if answers.effects:
        effects = [f"{EFFECT_NAMES[name]}: {values[:, row].mean() + 0.0:+.2f}" for name, values in answers.effects.items()]
        found.append(("effects on its class, log-odds", ", ".join(effects)))
    for kind, names in weight_names(answers.weights).items():
        shares = answers.weights[kind][:, row].mean(0)
        found.append((kind, ", ".join(f"{KINDS.get(name, name)}: {100 * share:.0f} %" for name, share in zip(names, shares.tolist(), strict=True))))
    return [(name, value.replace("image", "attributes") if visual == "attributes" else value) for name, value in found]


class _Posts:
    """Texts with the context marked, and small pictures with the core outlined."""

    def __init__(self, manifest: pl.DataFrame, edited: pl.DataFrame, root: Path, reference: Path) -> None:
        self.root, self.visual = root, visual_side(manifest)
        self.rows = {row["id"]: row for row in manifest.select("id", "text", "attributes", "image").iter_rows(named=True)}
        self.edits = {row["id"]: row for row in edited.select("id", "context_spans", "mask", "mask_side").iter_rows(named=True)}
        self.files = dict(zip(manifest["id"], view_inputs(manifest, None, "v", reference), strict=True)) if self.visual == "image" else {}

    def lines(self, post: str) -> list[Line]:
        """Text, and attribute words where they are the visual side."""
        row, edit = self.rows[post], self.edits.get(post, {})
        found = [Line("text", shorten(struck(row["text"] or "", edit.get("context_spans") or [])))]
        if self.visual == "attributes":
            found.append(Line("attributes", shorten([Piece("same", row["attributes"] or "")])))
        return found

    def shot(self, post: str) -> Shot | None:
        """The picture; None for a post without one."""
        if self.visual != "image" or self.rows[post]["image"] is None:
            return None
        picture, edit = small(self.files[post].load(self.root)), self.edits.get(post, {})
        if edit.get("mask") is not None:
            picture = outlined(picture, unpack_mask(edit["mask"], edit["mask_side"]))
        return Shot("image, core outlined", data_uri(picture), f"image of post {post}")
