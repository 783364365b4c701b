"""Groups of test items."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from causalroute.evaluation import groups

CLASSES = ("literal", "sarcastic")


def test_probe_groups_name_class_and_side() -> None:
    labels = np.array([0, 0, 1, 1])
    p = np.array([[[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]]])
    assert groups.probe_groups(labels, p, CLASSES).tolist() == ["literal aligned", "literal conflicting", "sarcastic aligned", "sarcastic conflicting"]


def test_probe_is_judged_by_its_mean_over_seeds() -> None:
    p = np.array([[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]])
    assert groups.probe_groups(np.array([0]), p, CLASSES).tolist() == ["literal aligned"]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_probe_groups_part_the_items_by_the_probes_own_hits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, p = rng.integers(3, size=50), rng.dirichlet([1, 1, 1], size=(4, 50))
    names = groups.probe_groups(labels, p, ("a", "b", "c"))
    hits = p.mean(0).argmax(-1) == labels
    assert (np.char.endswith(names, " aligned") == hits).all()
    assert all(name.split()[0] == "abc"[label] for name, label in zip(names.tolist(), labels, strict=True))


def test_empty_families_are_left_out_and_given_ones_come_first() -> None:
    some = np.array(["x", ""])
    found = groups.families({"z": some, "gone": np.array(["", ""])}, {"text_shortcut": some})
    assert list(found) == ["z", "text_shortcut"]


def test_cells_leave_out_small_groups_and_unknown_items() -> None:
    names = np.array(["big"] * 30 + ["small"] * 5 + [""] * 40)
    assert groups.cells({"g": names}) == (("g", "big"), ("g", "small"))
    assert groups.cells({"g": names}, groups.MIN_ITEMS) == (("g", "big"),)


def test_a_family_with_many_values_keeps_its_largest() -> None:
    names = np.array([f"{i:03d}" for i in range(100)] + ["often"] * 3)
    found = groups.cells({"g": names})
    assert len(found) == groups.MAX_GROUPS
    assert ("g", "often") in found


def test_worst_group_prefers_what_the_data_set_brings() -> None:
    probe, given_names = np.array(["p"] * 40), np.array(["a", "b"] * 20)
    assert groups.judged_cells({"text_shortcut": probe}) == (("text_shortcut", "p"),)
    assert groups.judged_cells({"conflict": given_names, "text_shortcut": probe}) == (("conflict", "a"), ("conflict", "b"))
