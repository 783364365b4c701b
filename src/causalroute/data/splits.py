"""Splits that no duplicate crosses, and the leaks of splits that others published.

Groups (connected components of duplicates) are dealt out whole, per label, in a seeded order that does not depend on the order of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from causalroute.config import Splits
from causalroute.data.duplicates import Pair, components
from causalroute.errors import UserError
from causalroute.io import sha256_bytes
from causalroute.rng import generator


def make_splits(ids: Sequence[str], labels: Sequence[int], groups: np.ndarray, settings: Splits) -> list[str]:
    """Assigns train, valid or id to every item.

    Args:
        ids: N unique ids; the order of dealing derives from them and the seed alone.
        labels: N class indices.
        groups: (N,) group of each item; items of one group share a split.
        settings: shares of valid and id (test), and the seed.

    Raises:
        UserError: the shares leave no train split.
    """
    if not (settings.valid > 0 and settings.test > 0 and settings.valid + settings.test < 1):
        raise UserError(
            f"splits: valid {settings.valid} and test {settings.test} must be positive and leave something for train",
            where="params.yaml",
            fix="for example 0.1 and 0.1",
        )
    members: dict[int, list[int]] = {}
    for position, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(position)
    strata: dict[int, list[list[int]]] = {}
    for items in members.values():
        strata.setdefault(_majority([labels[item] for item in items]), []).append(items)
    splits = [""] * len(ids)
    for label, stratum in sorted(strata.items()):
        _deal(stratum, ids, settings, label, splits)
    return splits


def _majority(labels: list[int]) -> int:
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def _deal(stratum: list[list[int]], ids: Sequence[str], settings: Splits, label: int, splits: list[str]) -> None:
    total = sum(map(len, stratum))
    left = {"id": max(1, round(total * settings.test)), "valid": max(1, round(total * settings.valid))}
    ordered = sorted(stratum, key=lambda items: sha256_bytes(min(ids[item] for item in items).encode()))
    for index in generator(settings.seed, "splits", label).permutation(len(ordered)):
        items = ordered[index]
        target = next((name for name in left if len(items) <= left[name]), "train")
        if target != "train":
            left[target] -= len(items)
        for item in items:
            splits[item] = target


def leaking(
    splits: Sequence[str], exact: Sequence[Pair], near: Sequence[Pair] = (), learned: Sequence[str] = ("train", "valid")
) -> tuple[list[int], list[int]]:
    """Positions of test (`id`) items that have a twin in the splits `learned`: exact twins, and items whose only twins there are near ones.

    Only links are looked at, never labels. `near` may name one member of each set of exact twins.
    """
    classes = components(len(splits), exact).tolist()
    linked: dict[int, set[int]] = {}
    for a, b in near:
        linked.setdefault(classes[a], set()).add(classes[b])
        linked.setdefault(classes[b], set()).add(classes[a])
    seen = {group for group, split in zip(classes, splits, strict=True) if split in learned}
    tested = [position for position, split in enumerate(splits) if split == "id"]
    equal = [position for position in tested if classes[position] in seen]
    close = [position for position in tested if classes[position] not in seen and linked.get(classes[position], set()) & seen]
    return equal, close


def conflicts(splits: Sequence[str], labels: Sequence[int], pairs: Sequence[Pair]) -> int:
    """Number of train and valid items with an exact twin of another label in train or valid (test labels stay unread)."""
    groups = components(len(splits), pairs).tolist()
    seen: dict[int, set[int]] = {}
    learned = [position for position, split in enumerate(splits) if split in ("train", "valid")]
    for position in learned:
        seen.setdefault(groups[position], set()).add(labels[position])
    return sum(len(seen[groups[position]]) > 1 for position in learned)
