"""Answers of every method -> one table of results: metrics with intervals, paired tests against a reference.

One temperature per method and seed is fitted on validation; every split is scored; every method is compared with ERM on the same items,
seeds and resamples. Letters: S seeds, N items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from causalroute.config import Dataset, Evaluate
from causalroute.errors import UserError
from causalroute.evaluation import calibration, groups, metrics, statistics
from causalroute.evaluation.collect import SPLITS, Answers, Facts, Method
from causalroute.evaluation.metrics import WORST, Array, Items, Metric
from causalroute.evaluation.statistics import Estimate, Sample

REFERENCE = "erm"
INVERTED = "inverted_bag_of_words"
"""Derived row of two-class tasks: the bag of words with its answers swapped; a high score on OOD means that OOD is the shortcut reversed."""
UNTESTED = (INVERTED, "rewrite_detector")
"""Rows to read other rows by: compared with nothing, so that they take no part in Holm's correction."""
KEPT = ("accuracy", "f1_macro", "worst_group", "consistency_tv", "held_out_accuracy_tv", "core_accuracy", "nll_calibrated")
"""Metrics whose samples stay at hand for comparisons with another method than the reference (`causalroute.evaluation.claims`)."""


@dataclass(frozen=True)
class Row:
    """One line of results.csv; differences are None for the reference and for derived rows."""

    method: str
    split: str
    metric: str
    mean: float
    low: float
    high: float
    seed_low: float | None
    seed_high: float | None
    items: int
    seeds: int
    higher_is_better: bool | None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    detectable: float | None = None


@dataclass(frozen=True)
class Results:
    """All rows, per-seed McNemar tests, temperatures (S,) per method, the answers they came from, and samples by (method, split, metric)."""

    rows: list[Row]
    mcnemar: list[tuple[str, str, int, int, int, float]]
    temperatures: dict[str, Array]
    answers: dict[str, Method]
    seeds: list[int]
    samples: dict[tuple[str, str, str], Sample] = field(default_factory=dict)

    def find(self, method: str, split: str, metric: str) -> Row | None:
        """The row, or None where the metric does not apply."""
        return self._index.get((method, split, metric))

    @cached_property
    def _index(self) -> dict[tuple[str, str, str], Row]:
        return {(row.method, row.split, row.metric): row for row in self.rows}


def complete(answers: dict[str, Method], facts: Facts, classes: Sequence[str]) -> tuple[dict[str, Method], dict[str, Array]]:
    """Adds what needs more than one file: derived rows, temperatures, probe groups, the train majority. Also returns the temperatures."""
    if "bag_of_words" in answers and len(classes) == 2:
        answers = {**answers, INVERTED: {s: replace(a, items=replace(a.items, p=a.items.p[..., ::-1], views={})) for s, a in answers["bag_of_words"].items()}}
    found: dict[str, Method] = {}
    temperatures: dict[str, Array] = {}
    for method, by_split in answers.items():
        if "valid" not in by_split:
            raise UserError(
                "there are no predictions on the valid split", where=method, fix="give the data set a validation split: temperature is fitted on it"
            )
        valid = by_split["valid"].items
        temperatures[method] = calibration.fit_temperatures(valid.p, valid.labels)
        found[method] = {split: _completed(answers, split, a, temperatures[method], facts, classes) for split, a in by_split.items()}
    return found, temperatures


def _completed(answers: dict[str, Method], split: str, mine: Answers, temperatures: Array, facts: Facts, classes: Sequence[str]) -> Answers:
    items = mine.items
    probes = {family: groups.probe_groups(items.labels, answers[judge][split].items.p, classes) for family, judge in groups.PROBES.items() if judge in answers}
    whole = groups.families(items.groups, probes)
    prior = np.array(facts.prior) if facts.prior else None
    calibrated = calibration.soften(items.p, temperatures)
    return replace(mine, items=replace(items, groups=whole, calibrated=calibrated, majority=facts.majority, prior=prior, weights=mine.weights))


def pair_items(method: Method, pairs: Mapping[str, str]) -> Items | None:
    """Originals of the id split with their rewrites of the ood split; None where no pair is whole."""
    if "id" not in method or "ood" not in method or not pairs:
        return None
    here, there = method["id"], method["ood"]
    position = {item: i for i, item in enumerate(here.ids.tolist())}
    found = [(position[pairs[item]], j) for j, item in enumerate(there.ids.tolist()) if pairs.get(item) in position]
    if not found:
        return None
    first, second = (np.array(side) for side in zip(*found, strict=True))
    return Items(labels=here.items.labels[first], p=here.items.p[:, first], rewrites=(there.items.labels[second], there.items.p[:, second]))


def split_metrics(items: Items) -> list[Metric]:
    """The registry where it applies, the worst group, and every group."""
    found = metrics.applicable(metrics.registry(items.positive), items)
    return [*found, *metrics.group_metrics(groups.cells(items.groups), groups.judged_cells(items.groups))]


def _units(method: Method, facts: Facts) -> Iterable[tuple[str, Items]]:
    """Splits, then pairs (reported under ood)."""
    yield from ((split, answers.items) for split, answers in method.items())
    if (pairs := pair_items(method, facts.pairs)) is not None:
        yield "ood", pairs


def score(answers: dict[str, Method], facts: Facts, dataset: Dataset, evaluate: Evaluate) -> Results:
    """Scores every method and split and compares each with the reference (`erm`, if it is there)."""
    completed, temperatures = complete(answers, facts, dataset.classes)
    names = [*([REFERENCE] if REFERENCE in completed else []), *(m for m in completed if m != REFERENCE)]
    rows: list[Row] = []
    reference: dict[tuple[str, str], Sample] = {}
    kept: dict[tuple[str, str, str], Sample] = {}
    for method in names:
        for split, items in _units(completed[method], facts):
            found = split_metrics(items)
            draw = partial(statistics.weights, len(items.labels), evaluate.bootstrap, evaluate.seed, split)
            samples = statistics.resample(items, found, draw)
            rows += [_row(method, split, metric, samples, items, evaluate, reference.get((split, metric.name))) for metric in found]
            kept |= {(method, split, name): sample for name, sample in samples.items() if name in KEPT}
            if method == REFERENCE:
                reference.update({(split, name): sample for name, sample in samples.items()})
    order = {method: i for i, method in enumerate(completed)}
    rows.sort(key=lambda row: (order[row.method], SPLITS.index(row.split)))
    seeds = len(next(iter(next(iter(answers.values())).values())).items.p)
    return Results(_adjusted(rows), _mcnemar(completed), temperatures, completed, list(range(seeds)), kept)


def interval(metric: Metric, samples: Mapping[str, Sample], items: Items, confidence: float) -> Estimate:
    """The interval of a metric. That of the worst group reaches down to the lowest lower end of any judged group.

    Which group is worst is itself uncertain: where a small one looks better than it is, another group's narrow interval would be reported.
    """
    found = statistics.estimate(samples[metric.name], confidence, metric.bounds, share=metric.share, bias=metric.bias)
    if metric.name != WORST:
        return found
    names = [f"{family}/{name}" for family, name in groups.judged_cells(items.groups)]
    return replace(found, low=min(found.low, *(statistics.estimate(samples[name], confidence, (0.0, 1.0), share=True).low for name in names)))


def _row(method: str, split: str, metric: Metric, samples: Mapping[str, Sample], items: Items, evaluate: Evaluate, reference: Sample | None) -> Row:
    sample = samples[metric.name]
    found = interval(metric, samples, items, evaluate.confidence)
    seed_low, seed_high = statistics.t_interval(sample.point, evaluate.confidence)
    row = Row(
        method, split, metric.name, found.mean, found.low, found.high,
        None if np.isnan(seed_low) else seed_low, None if np.isnan(seed_high) else seed_high,
        len(items.labels), len(sample.point), metric.higher_is_better,
    )  # fmt: skip
    if reference is None or method in UNTESTED:
        return row
    d = statistics.difference(sample, reference, evaluate.confidence)
    return replace(row, difference=d.mean, difference_low=d.low, difference_high=d.high, p=d.p, detectable=d.detectable)


def _adjusted(rows: list[Row]) -> list[Row]:
    """Holm's p across methods, for each split and metric by itself."""
    found = list(rows)
    families: dict[tuple[str, str], list[int]] = {}
    for i, row in enumerate(rows):
        if row.p is not None:
            families.setdefault((row.split, row.metric), []).append(i)
    for members in families.values():
        for i, p in zip(members, statistics.holm([rows[i].p or 0.0 for i in members]), strict=True):
            found[i] = replace(rows[i], p_holm=p)
    return found


def _mcnemar(answers: dict[str, Method]) -> list[tuple[str, str, int, int, int, float]]:
    """(method, split, seed, only the method right, only the reference right, p) on the test splits."""
    if REFERENCE not in answers:
        return []
    found = []
    for method, by_split in answers.items():
        for split, mine in by_split.items():
            if method in (REFERENCE, *UNTESTED) or split == "valid":
                continue
            for seed, (ours, theirs) in enumerate(zip(mine.items.hits, answers[REFERENCE][split].items.hits, strict=True)):
                found.append((method, split, seed, *statistics.mcnemar(ours, theirs)))
    return found
