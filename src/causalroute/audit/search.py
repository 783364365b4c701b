"""The audit: every cue that is cheap to see, tested against the label on train posts, with one bound over all tests.

Surface tokens (hashtags, mentions, numbers, links, emoji), surface forms, image statistics, image files and metadata that pass are *shortcuts*: they say
how a post was made or collected. Words, phrases, punctuation, attribute words and image clusters that pass are listed apart as associations: they may be
the meaning itself, and only a counterfactual can tell. Posts of the valid split repeat each share; no label of a test split is read.

A pair of tokens is listed only if it tells more than each of its tokens: among the posts that hold the token, those with the pair must differ from those
without it (Fisher's exact test, both tokens, p < alpha over the number of pairs that passed).
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.audit import images, tests
from causalroute.audit.cues import MEANING, Gathered, Group, Present, gather
from causalroute.audit.describe import describe
from causalroute.audit.explained import entropy, joint, rank_number
from causalroute.audit.images import Look, Seen
from causalroute.audit.posts import Posts, from_manifest
from causalroute.audit.probes import assign_folds, probes
from causalroute.audit.tests import Tested
from causalroute.config import Audit

LISTED = 100
"""Cues listed as shortcuts, and as associations, the surest first; the rest is counted."""


def audit(manifest: pl.DataFrame, summary: dict[str, Any], settings: Audit, root: Path) -> dict[str, Any]:
    """Shortcuts, associations, probes, leaks of a prepared data set.

    Args:
        manifest: all posts; labels of train and valid are read.
        summary: of the prepare stage: class names, leaks, duplicates.
        settings: bounds and folds.
        root: folder that image paths are relative to.

    Raises:
        UserError: the train split holds fewer than two classes.
    """
    posts = from_manifest(manifest, summary["classes"])
    found = search(posts, images.inspect(root, posts.images, posts.overlays), settings)
    return found | {"leaks": summary.get("leaks", {}), "duplicates": summary.get("duplicates", {})}


def search(posts: Posts, looks: Sequence[Look], settings: Audit) -> dict[str, Any]:
    """What the posts give away.

    Args:
        posts: n posts of train and valid.
        looks: what was seen of each post's image.
        settings: bounds and folds.

    Returns:
        JSON-ready: `shortcuts` and `associations` (lists, the surest first), `counts`, `listed`, `tests`, `probes`, `joint`, `items`, `labels`,
        `majority`, `label_entropy_bits` (what "explains" is a share of).
    """
    seen = dataclasses.replace(posts, images=[path if isinstance(look, Seen) else None for path, look in zip(posts.images, looks, strict=True)])
    gathered = gather(seen, looks, settings)
    cues, made = passing(seen, gathered, settings)
    shortcuts = [cue for cue in cues if cue["kind"] not in MEANING]
    associations = [cue for cue in cues if cue["kind"] in MEANING]
    kin = seen.kin([look.sha256 if isinstance(look, Seen) else None for look in looks])
    fold = assign_folds(seen.labels, kin.tolist(), settings.folds, settings.seed)
    strongest = sorted(shortcuts, key=lambda cue: (-cue["explains"], cue["cue"]))
    return {
        "items": {split: int(where.sum()) for split, where in (("train", seen.train), ("valid", ~seen.train))},
        "labels": dict(zip(seen.classes, seen.sizes(seen.train).astype(int).tolist(), strict=True)),
        "majority": seen.majority(),
        "label_entropy_bits": entropy(seen.sizes(seen.train)) / math.log(2),
        "tests": made,
        "counts": dict(sorted(Counter(cue["kind"] for cue in cues).items())),
        "found": {"shortcuts": len(shortcuts), "associations": len(associations)},
        "shortcuts": shortcuts[:LISTED],
        "associations": associations[:LISTED],
        "probes": probes(seen, gathered, fold),
        "joint": joint(seen, gathered.groups, strongest, fold, settings),
    }


def passing(posts: Posts, gathered: Gathered, settings: Audit) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Cues that pass `settings.control`, the surest first, as the dictionaries that are listed; and how many were tested and passed."""
    results = [_tested(posts, group) for group in gathered.groups]
    places = [(g, at) for g, result in enumerate(results) for at in range(len(result.log10_p))]
    log_p = np.concatenate([result.log10_p for result in results]) if results else np.zeros(0)
    bonferroni, rates = tests.adjusted(log_p)
    bar = np.log10(settings.alpha)
    passed = np.flatnonzero((bonferroni if settings.control == "fwer" else rates) < bar)
    explained = _explained_pairs(posts, gathered.groups, [places[i] for i in passed.tolist()], settings.alpha)
    kept = sorted((i for i in passed.tolist() if places[i] not in explained), key=lambda i: (log_p[i], gathered.groups[places[i][0]].names[places[i][1]]))
    cues = []
    room = dict.fromkeys((True, False), LISTED)
    for i in kept:
        g, at = places[i]
        group = gathered.groups[g]
        means = group.kinds[at] in MEANING
        room[means] -= 1
        bounds = (float(bonferroni[i]), float(rates[i]))
        cues.append(describe(posts, group, at, results[g], at, bounds, settings.examples if room[means] >= 0 else 0))
    made = {
        "made": len(log_p),
        "alpha": settings.alpha,
        "control": settings.control,
        "log10_bar": float(bar - np.log10(max(1, len(log_p)))),
        "passed": {"fwer": int((bonferroni < bar).sum()), "fdr": int((rates < bar).sum())},
        "pairs_explained_by_a_token": len(explained),
    }
    return cues, made


def _tested(posts: Posts, group: Group) -> Tested:
    """The test of each cue of a group."""
    if isinstance(group, Present):
        return tests.presence(_by_class(posts, group.matrix, group.rows), posts.sizes(group.rows))
    found = [rank_number(posts, group.values[:, v], group.rows)[0] for v in range(len(group.names))]
    flat = Tested(np.zeros(1, dtype=np.int64), np.full(1, 0.5), np.zeros(1), np.zeros(1))
    parts = [one or flat for one in found]
    return Tested(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(Tested)))


def _by_class(posts: Posts, matrix: Any, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(C, W) posts of each class that hold each cue."""
    return np.asarray((posts.one_hot()[:, rows] @ matrix[rows]).todense(), dtype=np.float64)


def _explained_pairs(posts: Posts, groups: Sequence[Group], passed: Sequence[tuple[int, int]], alpha: float) -> set[tuple[int, int]]:
    """The pairs of tokens that tell nothing beyond one of their tokens."""
    pairs = [(g, at) for g, at in passed if isinstance(groups[g], Present) and groups[g].parents is not None]  # type: ignore[union-attr]
    if not pairs:
        return set()
    double = groups[pairs[0][0]]
    single = groups[pairs[0][0] - 1]
    assert isinstance(double, Present)
    assert isinstance(single, Present)
    assert double.parents is not None
    columns = [at for _, at in pairs]
    both = _by_class(posts, double.matrix[:, columns], double.rows)
    weakest = np.full(len(pairs), -np.inf)
    for side in (0, 1):
        alone = _by_class(posts, single.matrix[:, double.parents[columns, side]], double.rows)
        weakest = np.maximum(weakest, tests.presence(both, alone).log10_p)
    return {pair for pair, log_p in zip(pairs, weakest.tolist(), strict=True) if log_p >= np.log10(alpha / len(pairs))}
