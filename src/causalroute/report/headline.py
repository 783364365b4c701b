"""The table a reader sees first: which columns, which rows, how a cell reads. Markdown and HTML print the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from causalroute.config import Dataset, Evaluate
from causalroute.evaluation.claims import PLAIN, PROPOSED
from causalroute.evaluation.collect import TESTS
from causalroute.evaluation.groups import MIN_ITEMS
from causalroute.evaluation.scoring import INVERTED, REFERENCE, Results, Row
from causalroute.report.blocks import number, percent, signed
from causalroute.report.claims import TITLES
from causalroute.report.tables import detectable, verdict
from causalroute.variants import is_oracle, is_visual, module_of

DETECTOR = "rewrite_detector"
BASELINES = ("majority", "bag_of_words", INVERTED, DETECTOR, "text_only", "image_only")
KINDS = ("baseline", "method", "oracle")
SIGNS = {"better": "▲", "worse": "▼", "same": "=", "": ""}


@dataclass(frozen=True)
class Column:
    """A column: title, what it shows, and whether the short table of results.md has it too."""

    title: str
    split: str
    metric: str
    short: bool = True


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


SWAPPED = {"tv": "held-out swaps ID", "t": "held-out text swaps ID", "v": "held-out image swaps ID"}
"""Title of the column for the sides of the held-out editor that passed the gate."""


@dataclass(frozen=True)
class Line:
    """One method's row; `parameters`: numbers that one seed stores, "–" for derived rows."""

    method: str
    name: str
    kind: str
    cells: tuple[Cell | None, ...]
    parameters: str


@dataclass(frozen=True)
class Finding:
    """Methods by how their accuracy on one split compares with the reference, with the difference in points."""

    split: str
    better: str
    same: str
    worse: str


def kind(method: str) -> str:
    """`baseline`, `method` or `oracle` (trained on what no real data has)."""
    if is_oracle(method):
        return "oracle"
    return "baseline" if module_of(method) in BASELINES else "method"


def subject(methods: Sequence[str]) -> str:
    """The method that the model card and the page of errors are about: the proposed one, else the first debiased one, else the last. No score is looked at."""
    debiased = [method for method in methods if module_of(method) not in PLAIN and not is_oracle(method)]
    return PROPOSED if PROPOSED in methods else [*methods[-1:], *debiased[:1]][-1]


def name(method: str, visual: str) -> str:
    """A method's name as printed; says so where its visual side is attribute words, and where it is an oracle."""
    attributes = visual == "attributes" and is_visual(method)
    notes = [note for note, holds in (("oracle", kind(method) == "oracle"), ("attributes", attributes)) if holds]
    return f"{method} ({', '.join(notes)})" if notes else method


def fair_swaps(dataset: Dataset, grades: Mapping[str, Any]) -> str:
    """Sides whose held-out swaps passed the gate: "tv", "t", "v" or ""; a test on swaps that lost their label or show their making would tell nothing."""
    gate = grades.get("editors", {}).get(dataset.held_out, {}).get("gate", {})
    return "".join(letter for letter, side in (("t", "text"), ("v", "image")) if gate.get(side, {}).get("passed"))


def columns(dataset: Dataset, results: Results, swaps: str) -> list[Column]:
    """Accuracy on every test split, F1s, worst group, consistency and pairs: those that exist in this run; `swaps` as `fair_swaps` gives it."""
    f1 = ("f1_positive", f"F1 of {dataset.positive}") if dataset.positive and len(dataset.classes) == 2 else ("f1_weighted", "weighted F1")
    shifted = "ood" if any("ood" in by_split for by_split in results.answers.values()) else "id"
    wanted = [Column(f"accuracy {TITLES[split]}", split, "accuracy") for split in TESTS]
    wanted += [Column(SWAPPED[swaps], "id", f"held_out_accuracy_{swaps}")] if swaps else []
    wanted += [Column("macro F1 ID", "id", "f1_macro"), Column("macro F1 OOD", "ood", "f1_macro", False)]
    wanted += [Column(f"{f1[1]} ID", "id", f1[0], False), Column(f"worst group {TITLES[shifted]}", shifted, "worst_group")]
    wanted += [Column(f"consistency {TITLES[shifted]}", shifted, "consistency_tv"), Column("pair accuracy", "ood", "pair_accuracy")]
    present = {(row.split, row.metric) for row in results.rows}
    return [column for column in wanted if (column.split, column.metric) in present]


def _cell(row: Row | None, alpha: float) -> Cell | None:
    if row is None:
        return None
    return Cell(percent(row.mean), f"{percent(row.low)}, {percent(row.high)}", verdict(row, alpha), round(row.mean, 6))


def lines(results: Results, shown: Sequence[Column], evaluate: Evaluate, visual: str, parameters: Mapping[str, int]) -> list[Line]:
    """Rows: baselines, methods, oracles; inside each in the order of params.yaml."""
    alpha = 1 - evaluate.confidence
    found = []
    for method in sorted(results.answers, key=lambda m: KINDS.index(kind(m))):
        cells = tuple(_cell(results.find(method, column.split, column.metric), alpha) for column in shown)
        stored = number(parameters[method]) if method in parameters else "–"
        found.append(Line(method, name(method, visual), kind(method), cells, stored))
    return found


def findings(results: Results, evaluate: Evaluate, visual: str) -> list[Finding]:
    """For each test split: which methods (baselines aside) beat the reference in accuracy, which cannot be told apart from it, which fall behind."""
    found = []
    for split in TESTS:
        sides: dict[str, list[str]] = {"better": [], "same": [], "worse": []}
        for method in (m for m in results.answers if kind(m) != "baseline"):
            row = results.find(method, split, "accuracy")
            side = verdict(row, 1 - evaluate.confidence)
            if side and row is not None and row.difference is not None:
                sides[side].append(f"{name(method, visual)} {signed(row.difference)}")
        if any(sides.values()):
            found.append(Finding(TITLES[split], *(", ".join(side) or "none" for side in sides.values())))
    return found


def notes(results: Results, evaluate: Evaluate, summary: Mapping[str, Any], swaps: str = "") -> list[str]:
    """What a reader has to know to read the table."""
    seeds = f"{len(results.seeds)} training seed{'s' if len(results.seeds) > 1 else ''}"
    found = [
        f"Percent; mean over {seeds} with its {100 * evaluate.confidence:g} % interval over seeds and test items jointly "
        f"(Student, seed variance with ddof 1 plus a bootstrap of {evaluate.bootstrap} resamples over items). "
        "A method without randomness keeps the error of the items; the interval over seeds alone is in results.csv.",
    ]
    if REFERENCE in results.answers and len(results.answers) > 1:
        found.append(
            f"▲ better, ▼ worse, = not measurably different from `{REFERENCE}`: paired over items and seeds, Holm-adjusted across methods in each column, "
            f"family-wise {1 - evaluate.confidence:.2g}."
        )
        sizes = [f"{TITLES[s]} {100 * d:.1f}" for s in TESTS if (d := detectable(results, s))]
        if sizes:
            found.append(f"Minimal detectable difference in accuracy (80 % power, before Holm, median over methods), points: {', '.join(sizes)}.")
    found.append(f"Worst group: lowest accuracy among groups of at least {MIN_ITEMS} items. Consistency: answer kept when both contexts are swapped.")
    if any(row.metric.startswith("held_out_") for row in results.rows):
        told = {"tv": "two contexts were", "t": "text context was", "v": "visual context was"}
        found.append(
            f"Held-out swaps: accuracy on ID posts whose {told[swaps]} swapped by an editor that no method trained on (but the oracle, where it is its own)."
            if swaps
            else "The swaps of the held-out editor did not pass the gate; what methods answer to them is among all metrics, not in the table."
        )
    found.append(
        "Parameters: numbers that one seed stores, heads for mediation and fitted tables included; the frozen backbone is shared and not counted. "
        "Seconds and memory differ between machines and lie beside the run: `runs/` (cost.json of each training job) and `benchmarks/out/` (every job)."
    )
    if INVERTED in results.answers:
        found.append(f"`{INVERTED}`: the bag of words with its answers swapped; where it scores high, the split rewards reversing the shortcut.")
    if DETECTOR in results.answers:
        cheat = "a cheat that turns the answer of the bag of words round where a caption reads like the published rewrites of train posts"
        found.append(f"`{DETECTOR}`: {cheat}; what it gains is gained by knowing the rewriter.")
    if any(kind(method) == "oracle" for method in results.answers):
        found.append("Oracle rows use what no real data set offers (training posts without the shortcut, or the true cues): a ceiling, not a competitor.")
    if summary.get("visual") == "attributes":
        found.append("The visual side of this data set is published attribute words and text read from the image, called attributes; no image was seen.")
    return found
