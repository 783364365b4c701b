"""The audit: every cue that is cheap to see, tested against the label on train posts, with one Bonferroni bound over all tests.

Surface tokens (hashtags, mentions, numbers, links, emoji), surface forms (has a hashtag, length, ...) and image statistics that pass are *shortcuts*: they
say how a post was made or collected. Words and punctuation that pass are listed apart as associations: they may be the meaning itself, and only a
counterfactual can tell. Posts of the valid split repeat each share; no test split is read.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.audit import images, probes, tests
from causalroute.config import Audit
from causalroute.counterfactual.tokens import SURFACE, Token, tokenize
from causalroute.counterfactual.views import visual_side
from causalroute.errors import UserError

LISTED = 100
"""Tokens listed per kind group, the surest first; the rest is counted."""
PLACEHOLDER = "<num>"
"""Stands for a number that the publisher took out; "has number" asks for those that are written."""
Tokens = list[list[Token]]


def audit(manifest: pl.DataFrame, summary: dict[str, Any], settings: Audit, root: Path) -> dict[str, Any]:
    """Shortcuts, associations, probes, leaks.

    Args:
        manifest: all posts; labels of train and valid are read.
        summary: of the prepare stage: class names, leaks, duplicates.
        settings: bounds and folds.
        root: folder that image paths are relative to.

    Returns:
        JSON-ready: `shortcuts` and `associations` (lists, the surest first), `counts`, `tests`, `probes`, `items`, `majority`, `leaks`, `duplicates`.

    Raises:
        UserError: the train split holds fewer than two classes.
    """
    rows = manifest.filter(pl.col("split").is_in(["train", "valid"]))
    posts = _Labelled(rows, summary["classes"])
    side = visual_side(rows)
    parts = [_token_cues(posts, settings.min_count), _form_cues(posts)]
    numbers = images.statistics(root, rows["image"].to_list()) if side == "image" else None
    if numbers is not None:
        parts += [_number_cues(posts, numbers, images.NAMES, "image"), _presence_of_image(posts, rows["image"].is_not_null().to_list())]
    if side == "attributes":
        words = [tokenize(text or "") for text in rows["attributes"]]
        parts.append([cue | {"kind": "attribute"} for cue in _token_cues(posts, settings.min_count, words)])
    made = sum(part[0]["tests"] for part in parts if part)
    bar = np.log10(settings.alpha / max(1, made))
    found = sorted((cue for part in parts for cue in part if cue["log10_p"] < bar), key=lambda cue: (cue["log10_p"], cue["cue"]))
    shortcuts = [cue for cue in found if cue["kind"] not in ("word", "punctuation", "attribute")]
    associations = [cue for cue in found if cue["kind"] in ("word", "punctuation", "attribute")]
    return {
        "items": {split: int((rows["split"] == split).sum()) for split in ("train", "valid")},
        "majority": posts.majority(),
        "tests": {"made": made, "alpha": settings.alpha, "log10_bar": float(bar)},
        "counts": dict(sorted(Counter(cue["kind"] for cue in found).items())),
        "shortcuts": [_listed(cue) for cue in shortcuts[:LISTED]],
        "associations": [_listed(cue) for cue in associations[:LISTED]],
        "probes": _probes(posts, rows, numbers, settings),
        "leaks": summary.get("leaks", {}),
        "duplicates": summary.get("duplicates", {}),
    }


class _Labelled:
    """Train and valid posts with labels."""

    def __init__(self, rows: pl.DataFrame, classes: list[str]) -> None:
        self.classes = classes
        self.labels = rows["label"].cast(pl.Int64).to_numpy()
        self.train = (rows["split"] == "train").to_numpy()
        self.tokens: Tokens = [tokenize(text or "") for text in rows["text"]]
        if len(set(self.labels[self.train].tolist())) < 2:
            raise UserError("the train split holds fewer than two classes", where="manifest.parquet", fix="an audit needs labelled train posts of two classes")

    def sizes(self, where: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.bincount(self.labels[where], minlength=len(self.classes)).astype(float)

    def majority(self) -> dict[str, Any]:
        sizes = self.sizes(self.train)
        return {"class": self.classes[int(sizes.argmax())], "share": float(sizes.max() / sizes.sum())}

    def count(self, names: list[set[str]], order: list[str], where: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Posts per class that hold each name: (C, W)."""
        index = {name: number for number, name in enumerate(order)}
        counts = np.zeros((len(self.classes), len(order)))
        for row in np.flatnonzero(where):
            for name in names[row]:
                if name in index:
                    counts[self.labels[row], index[name]] += 1
        return counts


def _presence_cues(posts: _Labelled, names: list[set[str]], kinds: dict[str, str], order: list[str]) -> list[dict[str, Any]]:
    if not order:
        return []
    train = posts.count(names, order, posts.train)
    valid = posts.count(names, order, ~posts.train)
    tested = tests.presence(train, posts.sizes(posts.train))
    return [
        {
            "cue": name,
            "kind": kinds[name],
            "class": posts.classes[c],
            "posts": int(train[:, w].sum()),
            "in_class": int(train[c, w]),
            "share": float(train[c, w] / max(1.0, train[:, w].sum())),
            "valid_posts": int(valid[:, w].sum()),
            "valid_share": float(valid[c, w] / valid[:, w].sum()) if valid[:, w].sum() else None,
            "log_odds": float(tested.effect[w]),
            "log10_p": float(tested.log10_p[w]),
            "tests": tested.tests,
        }
        for w, (name, c) in enumerate(zip(order, tested.label, strict=True))
    ]


def _token_cues(posts: _Labelled, min_count: int, tokens: Tokens | None = None) -> list[dict[str, Any]]:
    """One cue per token key that occurs in at least `min_count` train posts."""
    tokens = posts.tokens if tokens is None else tokens
    names = [{token.key for token in found} for found in tokens]
    kinds = {token.key: str(token.kind) for found in tokens for token in found}
    held = Counter(name for row in np.flatnonzero(posts.train) for name in names[row])
    return _presence_cues(posts, names, kinds, sorted(name for name, count in held.items() if count >= min_count))


def _form_cues(posts: _Labelled) -> list[dict[str, Any]]:
    """Does a post hold a token of a surface kind at all, and how long is it?"""
    names = [{f"has {token.kind}" for token in found if token.kind in SURFACE and token.key != PLACEHOLDER} for found in posts.tokens]
    order = [f"has {kind}" for kind in SURFACE if any(f"has {kind}" in held for held in names)]
    lengths = np.array([[len(found)] for found in posts.tokens], dtype=float)
    has, length = _presence_cues(posts, names, dict.fromkeys(order, "form"), order), _number_cues(posts, lengths, ("tokens",), "form")
    made = sum(part[0]["tests"] for part in (has, length) if part)
    return [cue | {"tests": made} for cue in (*has, *length)]


def _presence_of_image(posts: _Labelled, held: list[bool]) -> list[dict[str, Any]]:
    """Whether a post has an image at all, where only some have."""
    return _presence_cues(posts, [{"has image"} if one else set() for one in held], {"has image": "form"}, [] if all(held) else ["has image"])


def _number_cues(posts: _Labelled, values: NDArray[np.float64], names: tuple[str, ...], kind: str) -> list[dict[str, Any]]:
    """Cues of numbers (n, W); posts of which they are not known (NaN) are left out."""
    here = posts.train & ~np.isnan(values).any(axis=1)
    if len(set(posts.labels[here].tolist())) < 2:
        return []
    tested = tests.rank(values[here], posts.labels[here], len(posts.classes))
    rows = zip(names, tested.label, tested.effect, tested.log10_p, strict=True)
    return [
        {"cue": name, "kind": kind, "class": posts.classes[c], "auc": float(auc), "log10_p": float(log_p), "tests": tested.tests}
        for name, c, auc, log_p in rows
    ]


def _listed(cue: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in cue.items() if key != "tests"}


def _probes(posts: _Labelled, rows: pl.DataFrame, numbers: NDArray[np.float64] | None, settings: Audit) -> dict[str, Any]:
    """Text, its surface tokens alone, attribute words, image statistics: whatever there is."""
    fold = probes.assign_folds(posts.labels, rows["text_sha256"].to_list(), settings.folds, settings.seed)
    found = {"text": probes.words_probe([[token.key for token in tokens] for tokens in posts.tokens], posts.labels, fold)}
    surface = [[token.key for token in tokens if token.kind in SURFACE] for tokens in posts.tokens]
    found["surface tokens"] = probes.words_probe(surface, posts.labels, fold)
    if numbers is not None:
        absent: NDArray[np.bool_] = np.asarray(np.isnan(numbers).any(axis=1))
        known = np.where(absent[:, None], np.nanmean(numbers, axis=0), numbers)
        found["image statistics"] = probes.numbers_probe(np.column_stack([known, absent]) if absent.any() else known, posts.labels, fold)
    if visual_side(rows) == "attributes":
        words = [[token.key for token in tokenize(text or "")] for text in rows["attributes"]]
        found["attributes"] = probes.words_probe(words, posts.labels, fold)
    return found
