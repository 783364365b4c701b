"""How much of the label a cue explains, alone and together with the others.

alone     uncertainty coefficient u = I(cue; label) / H(label), the same as McFadden's R^2 of a model that knows the cue alone; a number is cut into ten
          bins of equal size. The plug-in estimate leans upwards by (r - 1)(C - 1) / 2n nats (Miller 1955), which is taken off; r values, C classes, n posts
jointly   1 - L / L_0: L mean log loss of a cross-fitted logistic regression on all shortcut cues that pass *within the training folds*, L_0 that of the
          class shares. Cues are chosen anew in each fold, so chance finds of the whole set cannot flatter it. It can fall below 0: then nothing is explained.
          Pairs of surface tokens stay out: their tokens stand for them
without   the same with one kind of cue, or one cue, left out; a small drop means that the others tell the same
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalroute.audit import tests
from causalroute.audit.cues import MEANING, PAIR, Group, Present
from causalroute.audit.posts import Bools, Posts
from causalroute.audit.probes import Judged, score, tellable
from causalroute.config import Audit

BINS = 10
"""Quantile bins of a number."""
TOP = 5
"""Single cues that are left out in turn."""
STRENGTH = 1.0
"""Inverse regularisation of the joint model."""
WIDEST = 300
"""Cues the joint model reads at most, the surest ones."""


def entropy(sizes: NDArray[np.float64]) -> float:
    """Entropy of counts in nats."""
    shares = sizes[sizes > 0] / sizes.sum()
    return float(-(shares * np.log(shares)).sum())


def uncertainty(table: NDArray[np.float64]) -> float:
    """The share of the label's entropy that a cue takes away.

    Args:
        table: (C, r) posts by class and value of the cue.
    """
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    base = entropy(table.sum(axis=1))
    if base == 0 or table.shape[1] < 2:
        return 0.0
    shared = base + entropy(table.sum(axis=0)) - entropy(table.ravel())
    bias = (table.shape[0] - 1) * (table.shape[1] - 1) / (2 * table.sum())
    return float(np.clip((shared - bias) / base, 0.0, 1.0))


def accuracy(table: NDArray[np.float64]) -> float:
    """Share of posts that the commonest class of each value gets right."""
    return float(table.max(axis=0).sum() / table.sum())


def cut(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin of each value; unknown values (NaN) have a bin of their own."""
    return np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="right"))


def quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inner edges of BINS bins of equal size."""
    known = values[~np.isnan(values)]
    return np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])) if len(known) else np.zeros(0)


@dataclasses.dataclass(frozen=True)
class Column:
    """One shortcut candidate of the joint model."""

    cue: str
    kind: str
    group: int
    place: int


def joint(posts: Posts, groups: Sequence[Group], found: Sequence[dict[str, Any]], fold: NDArray[np.int64], settings: Audit) -> dict[str, Any]:
    """What all shortcut cues together explain, and what is lost without each kind and each of the strongest cues.

    Args:
        posts: n posts.
        groups: candidates.
        found: the shortcuts, the most explaining first.
        fold: (n,) fold of each post.
        settings: error rate and control of the choice within folds.
    """
    inner = [_Fold(posts, groups, fold != held_out, settings) for held_out in np.unique(fold)]
    full = _judge(posts, inner, lambda column: True)
    kinds = sorted({column.kind for one in inner for column in one.columns})
    drops = [{"without": kind, "what": "kind"} | _drop(full, _judge(posts, inner, lambda column, k=kind: column.kind != k)) for kind in kinds]
    for cue in found[:TOP]:
        name = (cue["cue"], cue["kind"])
        drops.append({"without": name[0], "what": "cue"} | _drop(full, _judge(posts, inner, lambda column, n=name: (column.cue, column.kind) != n)))
    used = sorted({column.cue for one in inner for column in one.columns})
    return full | {"cues": len(used), "without": sorted(drops, key=lambda drop: (-drop["drop"], drop["without"]))}


def _drop(full: dict[str, Any], less: dict[str, Any]) -> dict[str, Any]:
    return {"explained": less["explained"], "drop": full["explained"] - less["explained"]}


class _Fold:
    """The cues that pass among the training posts of one fold, as columns for all posts."""

    def __init__(self, posts: Posts, groups: Sequence[Group], training: Bools, settings: Audit) -> None:
        self.training = training
        sure: list[tuple[float, Column]] = []
        for number, group in enumerate(groups if tellable(posts, training) else ()):
            places = [place for place, kind in enumerate(group.kinds) if kind not in (*MEANING, PAIR)]
            log_p = group_p(posts, group, training, places)
            sure += [(float(p), Column(group.names[place], group.kinds[place], number, place)) for p, place in zip(log_p, places, strict=True)]
        bounds = tests.adjusted(np.array([p for p, _ in sure]))[0 if settings.control == "fwer" else 1]
        passed = [entry for entry, bound in zip(sure, bounds, strict=True) if bound < np.log10(settings.alpha)]
        chosen = [column for _, column in sorted(passed, key=lambda entry: (entry[0], entry[1].cue))[:WIDEST]]
        self.columns: list[Column] = []
        self.parts: list[Any] = []
        for column in chosen:
            for part in self._parts(groups[column.group], column.place):
                self.columns.append(column)
                self.parts.append(part)

    def _parts(self, group: Group, place: int) -> list[Any]:
        from scipy.sparse import csc_matrix

        if isinstance(group, Present):
            return [group.matrix[:, [place]]]
        values = group.values[:, place]
        bins = cut(values, quantiles(values[self.training]))
        return [csc_matrix((bins == one)[:, None].astype(float)) for one in np.unique(bins[self.training])[1:]]


def group_p(posts: Posts, group: Group, where: Bools, places: Sequence[int]) -> NDArray[np.float64]:
    """log10 p of the cues of a group at `places` among the posts `where`."""
    if not len(places):
        return np.zeros(0)
    if isinstance(group, Present):
        counted = np.asarray((posts.one_hot()[:, where] @ group.matrix[where][:, list(places)]).todense())
        return tests.presence(counted, posts.sizes(where)).log10_p
    return np.array([rank_number(posts, group.values[:, place], where)[1] for place in places])


def rank_number(posts: Posts, values: NDArray[np.float64], where: Bools) -> tuple[tests.Tested | None, float]:
    """The rank test of one number among the posts `where` it is known of; p = 1 where there is nothing to compare."""
    here = where & np.isfinite(values)
    if len(set(posts.labels[here].tolist())) < 2 or len(np.unique(values[here])) < 2:
        return None, 0.0
    tested = tests.rank(values[here][:, None], posts.labels[here], len(posts.classes))
    return tested, float(tested.log10_p[0])


def _judge(posts: Posts, folds: Sequence[_Fold], wanted: Any) -> dict[str, Any]:
    """Explained share and accuracy of the joint model on the columns that are `wanted`."""
    from scipy.sparse import hstack
    from sklearn.linear_model import LogisticRegression

    judged = Judged(posts.labels)
    for one in folds:
        training, tested = one.training, ~one.training
        base = posts.sizes(training) + 0.5
        shares = np.tile(base / base.sum(), (int(tested.sum()), 1))
        parts = [part for column, part in zip(one.columns, one.parts, strict=True) if wanted(column)]
        guess = shares.copy()
        if parts:
            design = hstack(parts).tocsr()
            model = LogisticRegression(C=STRENGTH, max_iter=300, tol=1e-3).fit(design[training], posts.labels[training])
            guess = np.full_like(shares, 1e-9)
            guess[:, model.classes_] = model.predict_proba(design[tested])
        judged.add(tested, guess, shares)
    return {"explained": judged.explained(), **score(judged.right, len(posts.labels), posts.labels)}
