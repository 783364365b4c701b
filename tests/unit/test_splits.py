"""Made splits: no group crosses, shares hold per label, the order of rows is nothing to them. Leaks: counted against a naive loop."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalroute.config import Splits
from causalroute.data.splits import conflicts, leaking, make_splits
from causalroute.errors import UserError


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 200), st.integers(0, 10**6))
def test_groups_stay_whole_and_shares_hold(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids, labels = [f"p{index}" for index in range(count)], rng.integers(0, 2, count).tolist()
    groups = rng.integers(0, count, count)
    chosen = make_splits(ids, labels, groups, Splits(valid=0.2, test=0.2, seed=3))
    assert set(chosen) <= {"train", "valid", "id"}
    for group in set(groups.tolist()):
        assert len({split for split, other in zip(chosen, groups, strict=True) if other == group}) == 1
    counts = Counter(chosen)
    assert counts["valid"] <= 0.2 * count + 2
    assert counts["id"] <= 0.2 * count + 2


def test_stratified_seeded_and_independent_of_row_order() -> None:
    ids, labels = [f"p{index}" for index in range(1000)], [int(index % 10 == 0) for index in range(1000)]
    first = dict(zip(ids, make_splits(ids, labels, np.arange(1000), Splits()), strict=True))
    assert Counter(first.values()) == {"train": 800, "valid": 100, "id": 100}
    assert sum(labels[int(name[1:])] for name, split in first.items() if split == "id") == 10
    order = np.random.default_rng(0).permutation(1000)
    again = make_splits([ids[i] for i in order], [labels[i] for i in order], np.arange(1000), Splits())
    assert dict(zip([ids[i] for i in order], again, strict=True)) == first
    other = make_splits(ids, labels, np.arange(1000), Splits(seed=1))
    assert other != list(first.values())


@pytest.mark.parametrize(("valid", "test"), [(0.0, 0.1), (0.5, 0.5), (0.1, -1.0)])
def test_impossible_shares(valid: float, test: float) -> None:
    with pytest.raises(UserError, match="leave something for train"):
        make_splits(["a"], [0], np.zeros(1), Splits(valid=valid, test=test))


@given(st.lists(st.tuples(st.sampled_from(["train", "valid", "id", "ood"]), st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=25))
def test_leaks_and_conflicts_against_naive_loops(rows: list[tuple[str, int, int]]) -> None:
    splits, keys, labels = map(list, zip(*rows, strict=True))
    first: dict[int, int] = {}
    exact = [(first[key], index) for index, key in enumerate(keys) if first.setdefault(key, index) != index]
    naive = [i for i, s in enumerate(splits) if s == "id" and any(keys[j] == keys[i] and t in ("train", "valid") for j, t in enumerate(splits))]
    assert leaking(splits, exact) == (naive, [])
    seen = [i for i, s in enumerate(splits) if s in ("train", "valid")]
    assert conflicts(splits, labels, exact) == sum(any(keys[i] == keys[j] and labels[i] != labels[j] for j in seen) for i in seen)
    flipped = [1 - label if split in ("id", "ood") else label for split, label in zip(splits, labels, strict=True)]
    assert conflicts(splits, flipped, exact) == conflicts(splits, labels, exact)


def test_near_leaks_reach_through_exact_twins_only() -> None:
    splits = ["train", "train", "id", "id", "id", "valid"]
    # 1 is an exact twin of 0, 3 of 2; 2 is near 0; 4 is near 3 alone
    exact, near = [(0, 1), (2, 3)], [(1, 2), (3, 4)]
    assert leaking(splits, exact, near) == ([], [2, 3])
    assert leaking(splits, [(0, 2)], [(2, 5)], ("train",)) == ([2], [])
