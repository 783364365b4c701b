"""report.html: one file without network, readable without script; every word from the data is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from causalroute.config import Dataset
from causalroute.evaluation.scoring import REFERENCE, Results
from causalroute.report import html
from causalroute.report.blocks import Section, Table, counted, number, percent
from causalroute.report.claims import TITLES
from causalroute.report.figures import Figure
from causalroute.report.headline import KINDS, SIGNS, Column, Finding, Line, kind, name
from causalroute.report.tables import rounded, verdict
from causalroute.report.verdict import Answer

SECTIONS = {
    "accuracy": ("id_vs_ood", "differences"),
    "groups": ("groups_",),
    "effects": ("effects", "gates"),
    "calibration": ("reliability_",),
    "training": ("history_",),
    "audit": ("probes",),
}
SPLITS = ("train", "valid", "id", "ood", "neutral", "clean", "oracle_train", "oracle_valid")


@dataclass(frozen=True)
class Detail:
    """One line of the long table: where, what, value, difference."""

    method: str
    kind: str
    split: str
    metric: str
    mean: str
    interval: str
    difference: str
    p_holm: str
    sign: str
    sort: float


@dataclass(frozen=True)
class Content:
    """All that the page shows."""

    title: str
    name: str
    dataset: Dataset
    facts: Sequence[tuple[str, str]]
    posts: Table
    answers: Sequence[Answer]
    verdict: Figure | None
    columns: Sequence[Column]
    lines: Sequence[Line]
    findings: Sequence[Finding]
    control: Table | None
    notes: Sequence[str]
    figures: Sequence[Figure]
    details: Sequence[Detail]
    calibration: Sequence[Sequence[str]]
    audit: Section | None
    grades: Section | None
    errors: Table
    settings: Mapping[str, str]
    made: Sequence[tuple[str, str]]


def render(content: Content) -> str:
    """The page as text."""
    chosen = {section: [f for f in content.figures if f.key.startswith(prefixes)] for section, prefixes in SECTIONS.items()}
    # Drawings are our own and escape what they quote.
    drawings = {figure.key: Markup(figure.svg) for figure in [*content.figures, *([content.verdict] if content.verdict else [])]}
    values = {"c": content, "sections": chosen, "drawings": drawings, "reference": REFERENCE, "kinds": KINDS}
    return html.page("report.html.j2", values, styles=["chart.css"], scripts=["sort.js", "filter.js"])


def details(results: Results, visual: str, alpha: float) -> list[Detail]:
    """Every metric but the groups' (they have figures and groups.csv)."""
    found = []
    for row in results.rows:
        if "/" in row.metric:
            continue
        scale = row.metric.startswith(("nll", "brier"))
        show = (lambda v: f"{rounded(v):.3f}") if scale else percent
        difference = "" if row.difference is None else ("+" if row.difference > 0 else "") + show(row.difference)
        p = "" if row.p_holm is None else "< .001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}".lstrip("0")
        place = (name(row.method, visual), kind(row.method), row.split, row.metric)
        found.append(Detail(*place, show(row.mean), f"{show(row.low)}, {show(row.high)}", difference, p, SIGNS[verdict(row, alpha)], rounded(row.mean) or 0.0))
    return found


def calibration_rows(results: Results, visual: str) -> list[list[str]]:
    """Method, temperature, and ECE and NLL on the test splits before and after it."""
    found = []
    for method, fitted in results.temperatures.items():
        cells = [name(method, visual), f"{fitted.mean():.2f}"]
        for split in ("id", "ood"):
            for metric, show in (("ece", percent), ("nll", lambda v: f"{v:.3f}")):
                before, after = results.find(method, split, metric), results.find(method, split, f"{metric}_calibrated")
                cells.append(f"{show(before.mean)} → {show(after.mean)}" if before and after else "–")
        found.append(cells)
    return found


def facts(dataset: Dataset, summary: Mapping[str, Any], seeds: int) -> list[tuple[str, str]]:
    """What was asked, in a list."""
    found = [
        ("task", dataset.task),
        ("classes", ", ".join(dataset.classes) + (f" (positive: {dataset.positive})" if dataset.positive else "")),
        ("visual side", str(summary.get("visual", "?"))),
        ("editor", dataset.editor + (f"; held out of training: {dataset.held_out}" if dataset.held_out else "")),
        ("backbone", dataset.backbone),
        ("seeds", str(seeds)),
    ]
    if told := summary.get("injected"):
        found.append(("injected shortcuts", ", ".join(f"{key.replace('_', ' ')} {_listed(value)}" for key, value in told.items())))
    if left := counted(summary.get("dropped", {})):
        found.append(("left out", left))
    return found


def _listed(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def posts(dataset: Dataset, summary: Mapping[str, Any], results: Results) -> Table:
    """Posts of each split and class; labels of test splits come from the answers, where evaluation put them."""
    sizes: dict[str, Any] = summary.get("splits", {})
    shown = [split for split in SPLITS if split in sizes] + [split for split in sizes if split not in SPLITS]
    labels = {split: [found.get("labels", {}).get(name) for name in dataset.classes] for split, found in sizes.items()}
    for split, answers in next(iter(results.answers.values())).items():
        if labels.get(split, [None])[0] is None:
            labels[split] = [int((answers.items.labels == index).sum()) for index in range(len(dataset.classes))]
    rows = [("posts", *(_count(sizes[split].get("items")) for split in shown))]
    rows += [(name, *(_count(labels[split][index]) for split in shown)) for index, name in enumerate(dataset.classes)]
    return Table("Posts by split", ("", *(TITLES.get(split, split) for split in shown)), tuple(rows))


def _count(value: int | None) -> str:
    return "–" if value is None else number(value)
