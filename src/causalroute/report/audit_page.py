"""audit.html: one file without network, sortable, for phone and desk, light and dark; every word from the data is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from causalroute.report import charts, shortcuts
from causalroute.report.blocks import number, percent, share
from causalroute.report.charts import Axis, Point, Series
from causalroute.report.html import Filters, page

NOTES = {
    "shortcuts": "They say how a post was made or collected. A cue is listed because it predicts, not because it is wrong.",
    "associations": "Words, phrases, punctuation, clusters of like images: they pass the same test, but may be the meaning itself, so they are no shortcut.",
}
TITLES = {"shortcuts": "Shortcuts", "associations": "Associations"}
DROPS = 16
"""Lines of the figure on what is lost without a cue."""


def render(found: Mapping[str, Any], title: str) -> str:
    """The page as text.

    Args:
        found: content of audit.json with quoted posts.
        title: the data set or table.
    """
    section = shortcuts.section(found, _summary(found))
    figures = [shortcuts.figure(found), _joint(found)]
    values = {
        "title": title,
        "found": found,
        "section": section,
        "figures": [(one.title, one.caption, Markup(one.svg)) for one in figures if one],  # drawings are our own and escape what they quote
        "parts": [(key, TITLES[key], NOTES[key], found[key]) for key in ("shortcuts", "associations")],
        "told": found.get("table"),
    }
    filters: Filters = {"percent": percent, "share": share, "number": number, "effect": effect}
    return page("audit.html.j2", values, styles=["chart.css"], scripts=["sort.js"], filters=filters)


def effect(cue: Mapping[str, Any]) -> str:
    """Log-odds of a present/absent cue, AUC of a number."""
    if "log_odds" in cue:
        return f"{cue['log_odds'] + 0.0:+.2f}"
    return f"AUC {cue['auc']:.2f}"


def _summary(found: Mapping[str, Any]) -> dict[str, Any]:
    train = {"items": found["items"]["train"], "labels": found["labels"]}
    return {"splits": {"train": train}, "dropped": found.get("dropped", {})}


def _joint(found: Mapping[str, Any]) -> shortcuts.Figure | None:
    """How much less is explained without each kind and each of the strongest cues."""
    joint = found["joint"]
    if not joint["cues"]:
        return None
    drops = joint["without"][:DROPS]
    names = ["all shortcuts", *(f"without {_short(drop['without'])}" for drop in drops)]
    values = [max(0.0, joint["explained"]), *(max(0.0, drop["explained"]) for drop in drops)]
    axis = Axis(0, 1, "share of the label explained, %", True, [i / 5 for i in range(6)])
    title = "Together, and without each"
    summary = "; ".join(f"{name}: {percent(value)} %" for name, value in zip(names, values, strict=True))
    drawing = charts.rows_plot(names, [Series("explained share of the label's entropy", 0, [Point(v, i) for i, v in enumerate(values)])], axis, title, summary)
    caption = "Cross-fitted model on all shortcuts that pass within the training folds. Where little is lost without a cue, the others tell the same."
    return shortcuts.Figure("joint", title, caption, drawing)


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"
