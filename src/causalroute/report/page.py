"""report.html: one file without network, readable without script; every word from the data is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from causalroute import __version__
from causalroute.config import Dataset
from causalroute.evaluation.scoring import REFERENCE, Results
from causalroute.report.figures import Figure
from causalroute.report.headline import SIGNS, Column, Finding, Line, kind, name, percent
from causalroute.report.outline import Block, plain
from causalroute.report.tables import rounded, verdict

FOLDER = files("causalroute.report") / "templates"
SECTIONS = {
    "accuracy": ("id_vs_ood", "differences"),
    "groups": ("groups_",),
    "effects": ("effects", "gates"),
    "calibration": ("reliability_",),
    "training": ("history_",),
}


@dataclass(frozen=True)
class Detail:
    """One line of the long table: where, what, value, difference."""

    method: str
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
    columns: Sequence[Column]
    lines: Sequence[Line]
    findings: Sequence[Finding]
    notes: Sequence[str]
    figures: Sequence[Figure]
    details: Sequence[Detail]
    calibration: Sequence[Sequence[str]]
    audit: Sequence[Block]
    grades: Sequence[Block]
    settings: Mapping[str, str]
    digest: str


def template_text(filename: str) -> str:
    """A file of the templates folder, which travels inside the package."""
    return (FOLDER / filename).read_text(encoding="utf-8")


def render(content: Content) -> str:
    """The page as text."""
    environment = Environment(autoescape=True, loader=FunctionLoader(template_text), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    chosen = {section: [f for f in content.figures if f.key.startswith(prefixes)] for section, prefixes in SECTIONS.items()}
    page = environment.get_template("report.html.j2")
    # The stylesheets and drawings are our own and escape what they quote; everything else goes through autoescape.
    style = Markup(template_text("page.css") + template_text("chart.css"))
    script = Markup(template_text("sort.js"))
    drawings = {figure.key: Markup(figure.svg) for figure in content.figures}
    return page.render(c=content, sections=chosen, drawings=drawings, style=style, script=script, version=__version__, reference=REFERENCE, kind=kind)


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
        place = (name(row.method, visual), row.split, row.metric)
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
    splits = ", ".join(f"{split} {found.get('items', '?')}" for split, found in summary.get("splits", {}).items())
    found = [
        ("task", dataset.task),
        ("classes", ", ".join(dataset.classes) + (f" (positive: {dataset.positive})" if dataset.positive else "")),
        ("visual side", str(summary.get("visual", "?"))),
        ("items", splits),
        ("editor", dataset.editor),
        ("backbone", dataset.backbone),
        ("seeds", str(seeds)),
    ]
    if summary.get("dropped"):
        found.append(("left out", plain(summary["dropped"])))
    if summary.get("leaks"):
        found.append(("leaks", plain(summary["leaks"])))
    return found
