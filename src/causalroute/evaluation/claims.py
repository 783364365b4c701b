"""What the whole study says, from the same samples as the table: how far the gap to the oracle is closed, and what the mixture adds to a plain swap.

    gap closed = (method - reference) / (oracle - reference)

on the accuracy of the split that punishes shortcuts. The second comparison repeats the paired test with the strongest plain control in the place
of the reference: the proposed method differs from it by experts, gates and mediation alone. Letters: S seeds, N items.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from causalroute.config import Evaluate
from causalroute.evaluation import statistics
from causalroute.evaluation.collect import TESTS
from causalroute.evaluation.scoring import KEPT, REFERENCE, Results, Row
from causalroute.evaluation.statistics import Estimate, Sample
from causalroute.variants import is_oracle, module_of

PROPOSED, CONTROL = "causal_moe", "double_swap"
UNTRAINED = ("majority", "zero_shot", "zero_shot_generated")
ONE_SIDED = ("bag_of_words", "inverted_bag_of_words", "rewrite_detector", "text_only", "image_only")
PLAIN = (*UNTRAINED, *ONE_SIDED, REFERENCE, "late_fusion", "multi_view", "label_smoothing", "moe")
"""Methods that do nothing against shortcuts."""
HARD = (("ood", "accuracy"), ("id", "worst_group"))
"""Where a shortcut costs most; the first that a data set has is judged."""


@dataclass(frozen=True)
class Versus:
    """Method minus control on the same items, seeds and resamples; `p_holm` over the test splits of a metric."""

    method: str
    control: str
    split: str
    metric: str
    mean: float
    control_mean: float
    difference: float
    difference_low: float
    difference_high: float
    p: float
    p_holm: float
    detectable: float


@dataclass(frozen=True)
class Gap:
    """The best debiased method (by its mean) where shortcuts cost most; the oracle and the share of its lead that the method reaches, if there is one."""

    row: Row
    debiased: int
    aside: int
    """debiased methods that were set aside (`_sound`)"""
    reference: Row | None
    majority: Row | None
    oracle: Row | None
    closed: Estimate | None

    @property
    def below_majority(self) -> bool:
        """Whether always giving the most frequent class does better than the method there."""
        return self.majority is not None and self.row.metric == "accuracy" and self.row.mean < self.majority.mean


def against_control(results: Results, evaluate: Evaluate, method: str = PROPOSED, control: str = CONTROL) -> list[Versus]:
    """Paired tests of `method` against `control` on the test splits; empty where one of them is missing."""
    found: list[Versus] = []
    for metric in KEPT:
        family: list[Versus] = []
        for split in TESTS:
            ours, theirs = (results.samples.get((one, split, metric)) for one in (method, control))
            if ours is not None and theirs is not None:
                family.append(_versus((method, control, split, metric), ours, theirs, evaluate))
        adjusted = statistics.holm([one.p for one in family])
        found += [replace(one, p_holm=p) for one, p in zip(family, adjusted, strict=True)]
    return found


def _versus(place: tuple[str, str, str, str], ours: Sample, theirs: Sample, evaluate: Evaluate) -> Versus:
    d = statistics.difference(ours, theirs, evaluate.confidence)
    return Versus(*place, float(ours.point.mean()), float(theirs.point.mean()), d.mean, d.low, d.high, d.p, d.p, d.detectable)


def gap(results: Results, evaluate: Evaluate) -> Gap | None:
    """The best debiased method on the hard split; None where no method fights shortcuts or no such metric was measured."""
    for split, metric in HARD:
        rows = [row for row in results.rows if (row.split, row.metric) == (split, metric)]
        tried = [row for row in rows if module_of(row.method) not in PLAIN and not is_oracle(row.method)]
        if tried:
            sound = [row for row in tried if _sound(results, row.method)]
            best = max(sound or tried, key=lambda row: row.mean)
            oracle = max((row for row in rows if row.method.startswith("oracle_")), key=lambda row: row.mean, default=None)
            reference, majority = (results.find(name, split, metric) for name in (REFERENCE, "majority"))
            chosen = len(sound or tried)
            return Gap(best, chosen, len(tried) - chosen, reference, majority, oracle, _closed(results, best, oracle, evaluate))
    return None


def _sound(results: Results, method: str) -> bool:
    """Whether a method learned the task: on ID posts it is right more often than the most frequent class, by its interval.

    One that did not may still score where the shortcut misleads, for instance by having turned it round.
    """
    own, majority = (results.find(name, "id", "accuracy") for name in (method, "majority"))
    return own is None or majority is None or own.low > majority.mean


def _closed(results: Results, best: Row, oracle: Row | None, evaluate: Evaluate) -> Estimate | None:
    """The share of the gap, where the oracle leads the reference measurably: else there is no gap to close."""
    reference = results.samples.get((REFERENCE, best.split, best.metric))
    if oracle is None or reference is None or oracle.difference_low is None or oracle.difference_low <= 0:
        return None
    ours, top = (results.samples[(row.method, row.split, row.metric)] for row in (best, oracle))
    above = Sample(ours.point - reference.point, ours.resampled - reference.resampled)
    below = Sample(top.point - reference.point, top.resampled - reference.resampled)
    return statistics.estimate(statistics.ratio(above, below), evaluate.confidence)
