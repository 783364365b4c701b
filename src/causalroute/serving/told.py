"""A prediction in plain words, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from causalroute.printable import printable
from causalroute.serving.posts import Explanation, Prediction

BAR = 30
"""Columns of the longest bar."""
NAMES = {
    "NDE_text": "text context alone",
    "NDE_image": "image context alone",
    "NDE_both": "both contexts",
    "TE": "the whole post",
    "TIE": "beyond the contexts",
}


def told(found: Prediction, config: Mapping[str, Any]) -> str:
    """Answer, biased answer, and where it was asked for the explanation; ends with a line break."""
    lines = [_answer(config["method"], found.label, found.probabilities, f", +-{100 * found.spread:.1f} over seeds")]
    if found.biased is not None and found.biased_label is not None:
        lines.append(_answer(config["reference"], found.biased_label, found.biased, ""))
        if found.biased_label != found.label:
            lines.append("the two disagree: what the contexts suggest on their own was taken into account")
    if found.explanation is not None:
        lines += _why(found.explanation, found.label)
    return "".join(f"{line}\n" for line in [*lines, *(f"note: {one}" for one in found.warnings)])


def _answer(method: str, label: str, p: Mapping[str, float], more: str) -> str:
    rest = ", ".join(f"{printable(name)} {100 * value:.1f} %" for name, value in p.items())
    return f"{method}: {printable(label)} ({rest}{more})"


def _why(why: Explanation, label: str) -> list[str]:
    lines = [""]
    if why.effects:
        lines.append(f"effects on {label!r}, log-odds against the class prior")
        values = {name: why.effects[name][label] for name in NAMES if name in why.effects}
        most = max(abs(value) for value in values.values()) or 1.0
        lines += [f"  {NAMES[name]:<22}{value:+6.2f}  {'#' * round(BAR * abs(value) / most)}" for name, value in values.items()]
    if why.gates:
        lines.append("gate     " + "  ".join(f"{name} {value:.2f}" for name, value in why.gates.items()))
    if why.experts:
        lines.append("experts  " + "  ".join(f"{name} {value:.2f}" for name, value in why.experts if value > 0))
    if why.words:
        lines.append("text     " + " ".join(f"[{printable(word.text)}]" if word.context else printable(word.text) for word in why.words) + "   [context]")
    if why.region is not None:
        lines += ["image    # core", *("  " + "".join("#" if cell else "." for cell in line[::2]) for line in why.region.core[::4])]
    return lines
