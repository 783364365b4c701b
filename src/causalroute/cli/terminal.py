"""The audit as plain text for a terminal: fixed columns, no colours, no control characters from the data."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SHOWN = 15
"""Cues per table."""
WIDEST = 32
"""Columns of a terminal that a cue may take."""
BAR = 24


def plain(text: str, width: int = WIDEST) -> str:
    """`text` on one line without control and direction characters (they could rewrite a terminal), cut and padded to `width` columns."""
    out, used = "", 0
    for mark in " ".join(text.split()):
        category = unicodedata.category(mark)
        shown = "\N{REPLACEMENT CHARACTER}" if category in ("Cc", "Cf", "Cs", "Co", "Cn") else mark
        wide = 0 if category.startswith("M") else 2 if unicodedata.east_asian_width(mark) in "WF" else 1
        if used + wide > width - 1:
            out, used = out + "…", used + 1
            break
        out, used = out + shown, used + wide
    return out + " " * (width - used)


def summary(found: Mapping[str, Any], folder: Path) -> str:
    """The whole text, ending in a line break."""
    lines = [*_head(found), *_cues("shortcuts", found), *_cues("associations", found), *_probes(found), *_joint(found), *_twins(found)]
    return "\n".join([*lines, "", f"written: {folder / 'audit.html'}, audit.json, dropped.csv"]) + "\n"


def _head(found: Mapping[str, Any]) -> list[str]:
    told, made = found["table"], found["tests"]
    labels = ", ".join(f"{plain(name, 24).strip()} {count}" for name, count in found["labels"].items())
    lines = [f"{told['file']}: {told['rows']} rows, {told['used']} used; train posts: {labels}"]
    lines += [f"  {plain(note, 150).rstrip()}" for note in told["notes"]]
    if found["dropped"]:
        lines.append("  left out or without their image: " + ", ".join(f"{count} {reason}" for reason, count in found["dropped"].items()))
    control = "Bonferroni" if made["control"] == "fwer" else "Benjamini-Hochberg"
    passed = made["passed"]
    return [
        *lines,
        f"  {made['made']} cues tested, {control} at {made['alpha']:g}; passed: {passed['fwer']} by Bonferroni, {passed['fdr']} by Benjamini-Hochberg",
    ]


def _cues(part: str, found: Mapping[str, Any]) -> list[str]:
    cues, total = found[part], found["found"][part]
    if not cues:
        return ["", f"{part}: none that chance would not explain"]
    title = "SHORTCUTS (how a post was made or collected)" if part == "shortcuts" else "ASSOCIATIONS (may be the meaning itself)"
    lines = [
        "",
        f"{title}: {total}",
        f"  {'cue':<{WIDEST}} {'kind':<14} {'goes with':<14} {'posts':>7} {'share':>6} {'effect':>7} {'log10 p':>8} {'explains':>9}",
    ]
    for cue in cues[: SHOWN if part == "shortcuts" else SHOWN // 3]:
        posts, share = (str(cue["posts"]), f"{100 * cue['share']:.0f} %") if "posts" in cue else ("", "")
        effect = f"{cue['log_odds']:+.2f}" if "log_odds" in cue else f"AUC {cue['auc']:.2f}"
        row = f"{plain(cue['cue'])} {plain(cue['kind'], 14)} {plain(cue['class'], 14)} {posts:>7} {share:>6} {effect:>8}"
        lines.append(f"  {row} {cue['log10_p']:>7.1f} {100 * cue['explains']:>7.1f} %")
    return lines + ([f"  ... and {total - len(lines) + 3} more in audit.html"] if total > len(lines) - 3 else [])


def _probes(found: Mapping[str, Any]) -> list[str]:
    majority = found["majority"]
    lines = ["", f"WHAT EACH SIDE ALONE PREDICTS (cross-fitted accuracy, 95 % interval; majority {plain(majority['class'], 24).strip()})"]
    for name, probe in found["probes"].items():
        bar = "#" * round(BAR * probe["accuracy"])
        accuracy, low, high, majority = (100 * probe[key] for key in ("accuracy", "low", "high", "majority"))
        lines.append(f"  {name:<18} {accuracy:5.1f} % [{low:.1f}, {high:.1f}]  majority {majority:.1f} %  {bar}")
    return lines


def _joint(found: Mapping[str, Any]) -> list[str]:
    joint = found["joint"]
    lines = [
        "",
        f"TOGETHER the shortcuts explain {100 * max(0.0, joint['explained']):.1f} % of the label (cross-fitted), accuracy {100 * joint['accuracy']:.1f} %",
    ]
    return lines + [f"  without {plain(drop['without'], 28)} {100 * max(0.0, drop['explained']):5.1f} %" for drop in joint["without"][:8]]


def _twins(found: Mapping[str, Any]) -> list[str]:
    def told(counts: Mapping[str, Any], keys: Sequence[str]) -> str:
        return ", ".join(f"{key.replace('_', ' ')} {counts[key]}" for key in keys if counts.get(key) is not None)

    pairs = told(found["duplicates"], ("exact_text", "near_text", "exact_image", "near_image"))
    leaks = told(found["leaks"], ("exact_text", "near_text", "exact_image", "near_image"))
    conflicts = told(found["leaks"], ("conflicts_text", "conflicts_image"))
    lines = ["", f"TWINS  pairs: {pairs}"]
    lines.append(f"  test posts with a twin in train or valid: {leaks}" if leaks else "  no split column: leaks were not looked for")
    return [*lines, f"  posts at odds with an exact twin: {conflicts}"]
