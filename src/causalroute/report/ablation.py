"""The ablation of one data set: each variant of a method beside the method itself, on the same posts, seeds, first weights and batches.

The statistics are those of the result table (`evaluation.claims`), with the method in the place of the reference and Holm's correction over the variants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from causalroute import io, layout, methods
from causalroute.config import Dataset, Evaluate, Replicates
from causalroute.errors import UserError
from causalroute.evaluation import statistics
from causalroute.evaluation.claims import Versus, against_control
from causalroute.evaluation.collect import chunks, read_all, stored_numbers
from causalroute.evaluation.groups import MIN_ITEMS
from causalroute.evaluation.scoring import Results, score
from causalroute.report import headline, markdown, tables
from causalroute.report.blocks import code, number, percent
from causalroute.report.claims import TITLES, judge
from causalroute.report.headline import SIGNS, Cell, Column, Line
from causalroute.report.searched import show
from causalroute.report.write import read_facts
from causalroute.variants import is_variant, parent_of

SHOWN = {"accuracy": "accuracy", "worst_group": "worst group"}
"""Metrics of the tables in results.md; results.csv has every kept one."""


def build(name: str, dataset: Dataset, evaluate: Evaluate, replicates: Replicates) -> None:
    """Scores the methods of the ablation and writes metrics.json and results.{csv,md} below `layout.ablation`.

    Args:
        name: the data set.
        dataset: its section; `methods` are the rows to read, `ablation` the variants among them.
        evaluate: statistics.
        replicates: seeds of the ablation.

    Raises:
        UserError: a file of the run is missing or does not fit the others.
    """
    if not layout.summary(name).is_file():
        raise UserError("a file of an earlier stage is missing", where=str(layout.summary(name)), fix="run the workflow: `make reproduce`")
    summary = io.read_json(layout.summary(name))
    results = score(read_all(name, dataset, replicates), read_facts(name, dataset, summary), dataset, evaluate)
    parameters = stored_numbers(name, dataset, replicates)
    family = [method for method in dataset.methods if method in dataset.ablation or method in map(parent_of, dataset.ablation)]
    settings = {method: trained_settings(name, method, replicates) for method in family}
    versus = against_parents(results, dataset.ablation, evaluate)
    folder = layout.ablation(name)
    io.write_json(folder / "metrics.json", {method: found for method, found in tables.metrics_json(results).items() if method in family})
    io.write_csv(folder / "results.csv", tables.ablation_table(results, versus, parameters))
    io.write_text(folder / "results.md", document(name, results, versus, settings, parameters, evaluate))


def trained_settings(name: str, method: str, replicates: Replicates) -> dict[str, Any]:
    """All settings that a method was trained with, defaults included, from its weights file."""
    from safetensors import safe_open

    with safe_open(layout.run(name, method, *chunks(replicates)[0]) / "weights.safetensors", framework="numpy") as weights:
        return asdict(methods.settings_of(method, json.loads(weights.metadata()["settings"])))


def against_parents(results: Results, variants: Sequence[str], evaluate: Evaluate) -> list[Versus]:
    """Paired tests of every variant against its method; Holm over the variants for each split and metric."""
    found = [one for variant in variants for one in against_control(results, evaluate, variant, parent_of(variant))]
    families: dict[tuple[str, str], list[int]] = {}
    for place, one in enumerate(found):
        families.setdefault((one.split, one.metric), []).append(place)
    for members in families.values():
        for place, p in zip(members, statistics.holm([found[place].p for place in members]), strict=True):
            found[place] = replace(found[place], p_holm=p)
    return found


def changed(settings: Mapping[str, Mapping[str, Any]], variant: str) -> str:
    """Settings in which a variant differs from its method, with the method's in brackets: `top_k 0 (2)`."""
    own, parent = settings[variant], settings[parent_of(variant)]
    found = ", ".join(f"{key} {show(value)} ({show(parent[key])})" for key, value in own.items() if value != parent.get(key, value))
    return found or ("the same settings" if is_variant(variant) else "the same settings on other features")


def columns(results: Results) -> list[Column]:
    """Accuracy and worst group on every test split of the data set."""
    present = {(row.split, row.metric) for row in results.rows}
    wanted = [Column(f"{title} {TITLES[split]}", split, metric) for metric, title in SHOWN.items() for split in ("id", "ood", "neutral")]
    return [column for column in wanted if (column.split, column.metric) in present]


def document(
    name: str, results: Results, versus: Sequence[Versus], settings: Mapping[str, Mapping[str, Any]], parameters: Mapping[str, int], evaluate: Evaluate
) -> str:
    """results.md: methods and variants, then the differences."""
    shown, compared = columns(results), {(one.method, one.split, one.metric): one for one in versus}
    lines = [_line(results, method, shown, compared, settings, parameters, 1 - evaluate.confidence) for method in settings]
    parts = [
        f"# {markdown.escape(name)}: ablation",
        markdown.table(shown, lines),
        "Difference from the method in points, interval, Holm-adjusted p:",
        _differences(shown, [method for method in settings if method in {one.method for one in versus}], compared, 1 - evaluate.confidence),
        "\n".join(f"- {markdown.sentence(note)}" for note in notes(results, versus, evaluate)),
    ]
    return "\n\n".join(parts) + "\n"


def _line(
    results: Results, method: str, shown: Sequence[Column], compared: Mapping[tuple[str, str, str], Versus], settings: Mapping[str, Mapping[str, Any]],
    parameters: Mapping[str, int], alpha: float,
) -> Line:  # fmt: skip
    cells = []
    for column in shown:
        row, one = results.find(method, column.split, column.metric), compared.get((method, column.split, column.metric))
        verdict = judge(one, alpha) if one else ""
        cells.append(None if row is None else Cell(percent(row.mean), f"{percent(row.low)}, {percent(row.high)}", verdict, row.mean))
    varied = any(one.method == method for one in compared.values())
    title = f"{method}: {changed(settings, method)}" if varied else method
    return Line(method, title, headline.kind(method), tuple(cells), number(parameters[method]))


def _differences(shown: Sequence[Column], variants: Sequence[str], compared: Mapping[tuple[str, str, str], Versus], alpha: float) -> str:
    rows = [["variant", *(markdown.escape(column.title) for column in shown)], ["---", *(["---:"] * len(shown))]]
    for variant in variants:
        found = [compared.get((variant, column.split, column.metric)) for column in shown]
        rows.append([code(variant), *("–" if one is None else _difference(one, alpha) for one in found)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _difference(one: Versus, alpha: float) -> str:
    p = "< .001" if one.p_holm < 0.001 else f"{one.p_holm:.3f}".removeprefix("0")
    return f"{round(100 * one.difference, 1) + 0.0:+.1f} [{percent(one.difference_low)}, {percent(one.difference_high)}] p {p} {SIGNS[judge(one, alpha)]}"


def notes(results: Results, versus: Sequence[Versus], evaluate: Evaluate) -> list[str]:
    """What a reader has to know to read the tables."""
    variants, confidence = len({one.method for one in versus}), f"{100 * evaluate.confidence:g} %"
    found = [
        f"Percent; mean over {len(results.seeds)} training seeds with its {confidence} interval over seeds and test items jointly. "
        "In brackets behind a variant's settings: those of its method.",
        "▲ better, ▼ worse, = not measurably different from the method: paired over items and seeds, Holm-adjusted in each column over all variants "
        f"({variants}), family-wise {1 - evaluate.confidence:.2g}. Intervals of differences are not adjusted.",
        "A variant starts from the same weights as its method and sees the same batches in the same order, as far as its settings leave them alike; "
        "a method on other features in the first epoch alone.",
        f"Worst group: lowest accuracy among groups of at least {MIN_ITEMS} items.",
    ]
    sizes = [(TITLES[s], [one.detectable for one in versus if (one.split, one.metric) == (s, "accuracy")]) for s in ("id", "ood", "neutral")]
    told = ", ".join(f"{title} {100 * float(np.median(values)):.1f}" for title, values in sizes if values)
    return [*found, f"Minimal detectable difference in accuracy (80 % power, before Holm, median over variants), points: {told}."]
