"""A cue that passed -> what a reader needs to judge it: class, counts, shares, effect, what it explains, and posts to look at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalroute.audit.cues import Group, Present
from causalroute.audit.explained import accuracy, cut, quantiles, uncertainty
from causalroute.audit.posts import Posts
from causalroute.audit.tests import Tested

QUOTED = 160
"""Characters of a quoted post."""


def describe(posts: Posts, group: Group, place: int, tested: Tested, at: int, bounds: tuple[float, float], examples: int) -> dict[str, Any]:
    """One entry of `shortcuts` or `associations`.

    Args:
        posts: n posts.
        group: the group of the cue.
        place: column of the cue in its group.
        tested: result that holds the cue at position `at`.
        at: see `tested`.
        bounds: log10 of its Bonferroni- and its Benjamini-Hochberg-adjusted p.
        examples: posts quoted.
    """
    label = int(tested.label[at])
    cue = {
        "cue": group.names[place],
        "kind": group.kinds[place],
        "class": posts.classes[label],
        "z": float(tested.z[at]),
        "log10_p": float(tested.log10_p[at]),
        "log10_p_bonferroni": bounds[0],
        "log10_q": bounds[1],
    }
    if isinstance(group, Present):
        values = np.asarray(group.matrix[:, [place]].todense()).ravel().astype(np.int64)
        cue |= _shares(posts, values == 1, label) | {"log_odds": float(tested.effect[at])}
        shown = np.flatnonzero((values == 1) & group.rows)
    else:
        numbers = group.values[:, place]
        values = cut(numbers, quantiles(numbers[posts.train]))
        cue |= _middles(posts, numbers, label) | {"auc": float(tested.effect[at])}
        shown = np.flatnonzero(group.rows & np.isfinite(numbers))
        shown = shown[np.argsort(-numbers[shown] if tested.effect[at] >= 0.5 else numbers[shown], kind="stable")]
    table = np.zeros((len(posts.classes), int(values.max()) + 1))
    np.add.at(table, (posts.labels[posts.train], values[posts.train]), 1)
    cue |= {"explains": uncertainty(table), "accuracy_alone": accuracy(table)}
    typical = shown[posts.labels[shown] == label][:examples].tolist()
    return cue | {"examples": [{"id": posts.ids[row], "text": quote(posts.texts[row], group.names[place])} for row in typical]}


def _shares(posts: Posts, held: NDArray[np.bool_], label: int) -> dict[str, Any]:
    mine = posts.labels == label
    train, valid = held & posts.train, held & ~posts.train
    return {
        "posts": int(train.sum()),
        "in_class": int((train & mine).sum()),
        "share": float((train & mine).sum() / max(1, train.sum())),
        "share_without": float((~held & posts.train & mine).sum() / max(1, (~held & posts.train).sum())),
        "valid_posts": int(valid.sum()),
        "valid_share": float((valid & mine).sum() / valid.sum()) if valid.any() else None,
    }


def _middles(posts: Posts, numbers: NDArray[np.float64], label: int) -> dict[str, Any]:
    known = posts.train & np.isfinite(numbers)
    mine = posts.labels == label
    return {"median": float(np.median(numbers[known & mine])), "median_rest": float(np.median(numbers[known & ~mine])), "numbers_known": int(known.sum())}


def quote(text: str, cue: str) -> str:
    """At most QUOTED characters of a post around its cue, on one line."""
    line = " ".join(text.split())
    if len(line) <= QUOTED:
        return line
    place = max(0, line.lower().find(cue.split(" ")[0].lower()) - QUOTED // 3)
    start = min(place, len(line) - QUOTED)
    return ("… " if start else "") + line[start : start + QUOTED] + (" …" if start + QUOTED < len(line) else "")
