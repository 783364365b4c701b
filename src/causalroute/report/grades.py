"""counterfactuals.json -> one table for each side of a post: what the editors found, cut and left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from causalroute.report.blocks import Section, Table, percent

TEXT = {
    "f1": "F1 of marked cue tokens",
    "failed": "cue left in the swap",
    "core_touched": "core touched",
    "detectability": "told from real",
    "mask_ratio": "tokens marked",
    "edit_distance": "edit distance",
    "usable": "usable",
}
IMAGE = {
    "iou": "IoU of the core",
    "failed": "swap failed",
    "core_cut": "core cut",
    "background_kept": "own background kept",
    "mask_ratio": "area held as core",
    "usable": "usable",
}
GOOD = {
    "f1": "F1 near 100",
    "iou": "IoU near 100",
    "failed": "failed swaps near 0",
    "core_touched": "core touched near 0",
    "core_cut": "core cut near 0",
    "background_kept": "own background kept near 0",
    "detectability": "told from real near 50 (a bag of words then guesses whether a text was edited)",
    "usable": "usable near 100",
}
UNKNOWN = (
    "The true cues of these posts are unknown, so only what needs no truth is graded: how much the editors mark, how many swaps are usable, "
    "and whether swapped texts can be told from real ones."
)
KNOWN = (
    "Graded against the planted truth. An editor that leaves the cue teaches nothing; one that touches the core teaches wrong labels. "
    "`truth` is the ceiling, `random` the floor."
)


def section(grades: Mapping[str, Any], visual: str) -> Section | None:
    """Two tables, editors in rows; None where nothing was graded."""
    editors = grades.get("editors", {})
    if not editors:
        return None
    other = "Attributes" if visual == "attributes" else "Image"
    tables = [_table("Text", "text", TEXT, editors), _table(other, "image", IMAGE, editors)]
    return Section((KNOWN if grades.get("known_truth") else UNKNOWN,), tuple(table for table in tables if table is not None))


def _table(title: str, side: str, columns: Mapping[str, str], editors: Mapping[str, Any]) -> Table | None:
    """Percent; columns that no editor fills are left out."""
    found = {name: editor.get(side) or {} for name, editor in editors.items()}
    used = [key for key in columns if any(values.get(key) is not None for values in found.values())]
    if not used:
        return None
    rows = [(name, *(_shown(values.get(key)) for key in used)) for name, values in found.items()]
    good = [GOOD[key] for key in used if key in GOOD]
    return Table(f"{title}, %", ("editor", *(columns[key] for key in used)), tuple(rows), f"Good is: {', '.join(good)}." if good else "", ("editor",))


def _shown(value: float | None) -> str:
    return "–" if value is None else percent(value)
