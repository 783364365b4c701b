"""The table a reader sees first: which columns, which rows, how a cell reads. Markdown and HTML print the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from causalroute.config import Dataset, Evaluate
from causalroute.evaluation.groups import MIN_ITEMS
from causalroute.evaluation.scoring import INVERTED, REFERENCE, Results, Row
from causalroute.report.tables import detectable, verdict

BASELINES = ("majority", "bag_of_words", INVERTED, "text_only", "image_only")
KINDS = ("baseline", "method", "oracle")
SIGNS = {"better": "▲", "worse": "▼", "same": "=", "": ""}
VISUAL = ("image_only", "image_swap")
TITLES = {"id": "ID", "ood": "OOD", "neutral": "neutral", "valid": "valid"}


@dataclass(frozen=True)
class Column:
    """A column: title, and what it shows."""

    title: str
    split: str
    metric: str


@dataclass(frozen=True)
class Cell:
    """Mean and interval in percent, and how it compares with the reference."""

    mean: str
    interval: str
    verdict: str
    sort: float

    @property
    def sign(self) -> str:
        """The comparison as one character."""
        return SIGNS[self.verdict]


@dataclass(frozen=True)
class Line:
    """One method's row."""

    method: str
    name: str
    kind: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Finding:
    """Methods by how their accuracy on one split compares with the reference, with the difference in points."""

    split: str
    better: str
    same: str
    worse: str


def kind(method: str) -> str:
    """`baseline`, `method` or `oracle` (trained on what no real data has)."""
    if method.startswith("oracle_"):
        return "oracle"
    return "baseline" if method in BASELINES else "method"


def name(method: str, visual: str) -> str:
    """A method's name as printed; says so where its visual side is attribute words, and where it is an oracle."""
    notes = [note for note, holds in (("oracle", kind(method) == "oracle"), ("attributes", visual == "attributes" and method in VISUAL)) if holds]
    return f"{method} ({', '.join(notes)})" if notes else method


def columns(dataset: Dataset, results: Results) -> list[Column]:
    """Accuracy on every test split, F1s, worst group, consistency and pairs: those that exist in this run."""
    f1 = ("f1_positive", f"F1 of {dataset.positive}") if dataset.positive and len(dataset.classes) == 2 else ("f1_weighted", "weighted F1")
    shifted = "ood" if any("ood" in by_split for by_split in results.answers.values()) else "id"
    wanted = [Column(f"accuracy {TITLES[split]}", split, "accuracy") for split in ("id", "ood", "neutral")]
    wanted += [Column(f"macro F1 {TITLES[split]}", split, "f1_macro") for split in ("id", "ood")]
    wanted += [Column(f"{f1[1]} ID", "id", f1[0]), Column(f"worst group {TITLES[shifted]}", shifted, "worst_group")]
    wanted += [Column(f"consistency {TITLES[shifted]}", shifted, "consistency_tv"), Column("pair accuracy", "ood", "pair_accuracy")]
    present = {(row.split, row.metric) for row in results.rows}
    return [column for column in wanted if (column.split, column.metric) in present]


def percent(value: float) -> str:
    """A fraction in percent with one decimal, never "-0.0"."""
    return f"{round(100 * value, 1) + 0.0:.1f}"


def _cell(row: Row | None, alpha: float) -> Cell | None:
    if row is None:
        return None
    return Cell(percent(row.mean), f"{percent(row.low)}, {percent(row.high)}", verdict(row, alpha), round(row.mean, 6))


def lines(results: Results, shown: Sequence[Column], evaluate: Evaluate, visual: str) -> list[Line]:
    """Rows: baselines, methods, oracles; inside each in the order of params.yaml."""
    alpha = 1 - evaluate.confidence
    found = []
    for method in sorted(results.answers, key=lambda m: KINDS.index(kind(m))):
        cells = tuple(_cell(results.find(method, column.split, column.metric), alpha) for column in shown)
        found.append(Line(method, name(method, visual), kind(method), cells))
    return found


def findings(results: Results, evaluate: Evaluate, visual: str) -> list[Finding]:
    """For each test split: which methods (baselines aside) beat the reference in accuracy, which cannot be told apart from it, which fall behind."""
    found = []
    for split in ("id", "ood", "neutral"):
        sides: dict[str, list[str]] = {"better": [], "same": [], "worse": []}
        for method in (m for m in results.answers if kind(m) != "baseline"):
            row = results.find(method, split, "accuracy")
            side = verdict(row, 1 - evaluate.confidence)
            if side and row is not None and row.difference is not None:
                sides[side].append(f"{name(method, visual)} {100 * row.difference:+.1f}")
        if any(sides.values()):
            found.append(Finding(TITLES[split], *(", ".join(side) or "none" for side in sides.values())))
    return found


def notes(results: Results, evaluate: Evaluate, summary: Mapping[str, Any]) -> list[str]:
    """What a reader has to know to read the table."""
    seeds = f"{len(results.seeds)} training seed{'s' if len(results.seeds) > 1 else ''}"
    found = [
        f"Percent; mean over {seeds} with its {100 * evaluate.confidence:g} % interval over seeds and test items jointly "
        f"(Student, seed variance with ddof 1 plus a bootstrap of {evaluate.bootstrap} resamples over items). "
        "A method without randomness keeps the error of the items; the interval over seeds alone is in results.csv.",
    ]
    if REFERENCE in results.answers and len(results.answers) > 1:
        found.append(
            f"▲ better, ▼ worse, = not measurably different from {REFERENCE}: paired over items and seeds, Holm-adjusted across methods in each column, "
            f"family-wise {1 - evaluate.confidence:.2g}."
        )
        sizes = [f"{TITLES[s]} {100 * d:.1f}" for s in ("id", "ood", "neutral") if (d := detectable(results, s))]
        if sizes:
            found.append(f"Minimal detectable difference in accuracy (80 % power, before Holm, median over methods), points: {', '.join(sizes)}.")
    found.append(f"Worst group: lowest accuracy among groups of at least {MIN_ITEMS} items. Consistency: answer kept when both contexts are swapped.")
    if INVERTED in results.answers:
        found.append(f"{INVERTED}: the bag of words with its answers swapped; where it scores high, the split rewards reversing the shortcut.")
    if any(kind(method) == "oracle" for method in results.answers):
        found.append("Oracle rows use what no real data set offers (training posts without the shortcut, or the true cues): a ceiling, not a competitor.")
    if summary.get("visual") == "attributes":
        found.append("The visual side of this data set is published attribute words and text read from the image, called attributes; no image was seen.")
    return found
