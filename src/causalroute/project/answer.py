"""The answer of a finished project, read from its report files: what was found, what the methods achieved, where to look."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from causalroute import layout
from causalroute.data.manifest import SPLITS
from causalroute.io import read_json
from causalroute.printable import printable

SIDES = ("text", "image")
SHOWN = 4
"""Shortcuts that are named."""


def claims(folder: Path, dataset: str) -> list[str]:
    """The sentences at the top of results.md, in plain text; none without a report."""
    path = folder / layout.reports(dataset) / "results.md"
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        if line.startswith("|"):
            break
        if line.startswith("- "):
            found.append(printable(re.sub(r"\\([\\`*_{}\[\]()<>#+.!|~-])", r"\1", line[2:])))
    return found


def shortcuts(folder: Path, dataset: str) -> list[str]:
    """What the audit found at the top, one sentence each, and what the shortcuts explain together; none without an audit."""
    path = folder / layout.reports(dataset) / "audit.json"
    audit: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    if not audit:
        return []
    total = audit["found"]["shortcuts"]
    if not total:
        return ["The audit found no shortcut that chance would not explain."]
    named = ", ".join(_cue(cue) for cue in audit["shortcuts"][:SHOWN])
    joint = audit["joint"]
    told = f"{100 * max(0.0, joint['explained']):.0f} % of the label (cross-fitted), accuracy {100 * joint['accuracy']:.0f} %"
    together = f"{'Together they explain' if total > 1 else 'It explains'} {told}."
    more = f", and {total - SHOWN} more" if total > SHOWN else ""
    return [f"The audit found {total} shortcut{'s' if total > 1 else ''}: {named}{more}.", together]


def gates(folder: Path, dataset: str) -> list[str]:
    """One sentence for each editor: whether its counterfactuals of each side are trained on, and why not."""
    found = []
    for path in sorted((folder / layout.gate(dataset, "")).parent.glob("*.gate.json")):
        sides = read_json(path)
        told = [_side(side, sides[side]) for side in SIDES if sides.get(side)]
        found.append(f"Counterfactuals ({path.name.removesuffix('.gate.json')}, docs/gate.md): {'; '.join(told)}.")
    return found


def _side(name: str, side: Mapping[str, Any]) -> str:
    if not side["passed"]:
        return printable(f"those of the {name} are not good enough to train on: {', '.join(side['reasons'])}")
    return f"those of the {name} are trained on" + ("" if side["verdict"] == "passed" else ", though too few posts could judge them in every respect")


def _cue(cue: Mapping[str, Any]) -> str:
    share = f" in {100 * cue['share']:.0f} % of {cue['posts']} posts" if "posts" in cue else ""
    return printable(f"{cue['cue']} ({cue['kind']}) goes with {cue['class']}{share}")


def splits(folder: Path, dataset: str) -> list[str]:
    """How many posts each split has, what was left out, and what became of an out-of-distribution test."""
    path = folder / layout.summary(dataset)
    if not path.is_file():
        return []
    summary = read_json(path)
    sizes = ", ".join(f"{summary['splits'][split]['items']} {split}" for split in SPLITS if split in summary["splits"])
    lost = ", ".join(f"{count} {reason}" for reason, count in summary["dropped"].items())
    found = [f"Posts: {sizes}{f'; left out: {lost} ({folder / layout.dropped(dataset)})' if lost else ''}."]
    ood = summary.get("ood", "")
    if ood == "resampled":
        found.append("OOD: test posts chosen so that their words say nothing of their label (docs/injected.md says what that shows, and what not).")
    elif ood:
        why = printable(ood.removeprefix("none: "))
        found.append(f"No out-of-distribution test: {why}. A column that marks posts from elsewhere as ood makes one (--split).")
    return found


def pages(folder: Path, dataset: str) -> dict[str, Path]:
    """What there is to open."""
    named = {
        "report": layout.reports(dataset) / "report.html",
        "audit": layout.audit_page(dataset),
        "counterfactuals": layout.gallery(dataset),
        "table of results": layout.reports(dataset) / "results.csv",
    }
    return {what: folder / path for what, path in named.items() if (folder / path).is_file()}
