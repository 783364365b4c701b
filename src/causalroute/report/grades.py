"""counterfactuals.json -> one table for each side of a post: what the editors found, cut and left behind, and how each side did at the gate."""

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


GATE = {
    "detectability": "told from real, AUC",
    "detectability_words": "by its words, AUC",
    "cue_left": "cue left, %",
    "label_kept": "label kept, %",
    "usable": "usable, %",
}
AUCS = ("detectability", "detectability_words")
GATE_NOTE = (
    "95 % intervals. Told from real: .5 is a guess. Cue left: share of what this side alone tells about the label that a swap leaves; below 0 it tells "
    "another class. Label kept: share of what real posts tell, cues aside, that a probe still reads in swaps. A side that failed is not trained on."
)
SIDES = ("text", "image")


def section(grades: Mapping[str, Any], visual: str) -> Section | None:
    """Two tables, editors in rows; None where nothing was graded."""
    editors = grades.get("editors", {})
    if not editors:
        return None
    other = "Attributes" if visual == "attributes" else "Image"
    gates = {name: editor["gate"] for name, editor in editors.items() if editor.get("gate")}
    tables = [_gate_table(gates, other), _table("Text", "text", TEXT, editors), _table(other, "image", IMAGE, editors)]
    told = [f"Gate, `{name}`, {side}: {verdict}{f' ({why})' if why else ''}." for name, found in gates.items() for side, verdict, why in verdicts(found)]
    return Section((KNOWN if grades.get("known_truth") else UNKNOWN, *told), tuple(table for table in tables if table is not None))


def verdicts(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(side, verdict, why) of both sides and of flipped texts; why is empty for one that passed."""
    judged = {side: found[side] for side in SIDES if side in found}
    if flip := found.get("text", {}).get("flip"):
        judged["flips"] = flip
    return [
        (side, one["verdict"], "; ".join(one["reasons"] or (one.get("undecided", []) if one["verdict"] == "undecided" else []))) for side, one in judged.items()
    ]


def _gate_table(gates: Mapping[str, Any], other: str) -> Table | None:
    """Every editor and side that was judged; measures that nobody has are left out."""
    found = [(name, side, gate[side]) for name, gate in gates.items() for side in SIDES if side in gate]
    used = [key for key in GATE if any(one.get(key) for _, _, one in found)]
    if not used:
        return None
    rows = [(name, other.lower() if side == "image" else side, one["verdict"], *(_interval(one.get(key), key) for key in used)) for name, side, one in found]
    return Table("Gate", ("editor", "side", "verdict", *(GATE[key] for key in used)), tuple(rows), GATE_NOTE, ("editor", "side", "verdict"))


def _interval(found: Mapping[str, float] | None, key: str) -> str:
    if not found:
        return "–"
    scale, digits = (1, 2) if key in AUCS else (100, 0)
    value, low, high = (f"{round(scale * found[end], digits) + 0.0:.{digits}f}" for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


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
