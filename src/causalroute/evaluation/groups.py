"""Groups of test items: label x shortcut (aligned or conflicting), or the groups that a data set brings along.

Whether the shortcut of a modality is aligned with an item's label is judged by a probe that saw the train split and that modality only: the
`text_only` / `image_only` method of the same run, averaged over seeds (test items are unseen, so no folds are needed). It knows nothing of
the counterfactual editors, so groups and counterfactuals cannot be circular. Its own conflicting groups score 0 by definition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

MIN_ITEMS = 20
"""Smaller groups are listed with their size but do not enter the worst group: their interval would say nothing."""
MAX_GROUPS = 24
"""A family with more values is no grouping (ids, dates): only its largest ones are shown."""
PROBES = {"text_shortcut": "text_only", "image_shortcut": "image_only"}
"""Family of groups -> the method that judges it."""

Names = NDArray[np.str_]


def probe_groups(labels: NDArray[np.int64], p: NDArray[np.float64], classes: Sequence[str]) -> Names:
    """(N,) "<class> aligned" where the probe's mean probabilities p (S, N, C) are right about the label, else "<class> conflicting"."""
    right = p.mean(0).argmax(-1) == labels
    return np.array([f"{classes[label]} {'aligned' if hit else 'conflicting'}" for label, hit in zip(labels, right, strict=True)], dtype=np.str_)


def families(given: Mapping[str, Names], probes: Mapping[str, Names]) -> dict[str, Names]:
    """All families of groups, given ones first; a family without a single name on this split is left out."""
    merged = {**dict(sorted(given.items())), **dict(sorted(probes.items()))}
    return {family: names for family, names in merged.items() if (names != "").any()}


def cells(groups: Mapping[str, Names], minimum: int = 1) -> tuple[tuple[str, str], ...]:
    """(family, group) pairs with at least `minimum` items, in order of family and name; at most MAX_GROUPS per family, the largest."""
    found: list[tuple[str, str]] = []
    for family, names in groups.items():
        values, counts = np.unique(names[names != ""], return_counts=True)
        largest = sorted(zip(-counts, values.tolist(), strict=True))[:MAX_GROUPS]
        found += [(family, name) for name in sorted(name for count, name in largest if -count >= minimum)]
    return tuple(found)


def judged_cells(groups: Mapping[str, Names]) -> tuple[tuple[str, str], ...]:
    """The groups that `worst_group` ranges over: those the data set brings along, else label x probe; MIN_ITEMS at least."""
    given = {family: names for family, names in groups.items() if family not in PROBES}
    return cells(given or groups, MIN_ITEMS)
