"""A fast part of `benchmarks.coverage`: shipped intervals hold the truth as often as they say, and intervals built wrongly are caught by the same studies.

Fixed seeds; 400 studies know a coverage of 95 % to 1.1 points, the limits are two to three of those away from 93 and 97.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmarks import coverage, studies
from benchmarks.studies import Study

from causalroute.evaluation import scoring, statistics
from causalroute.rng import generator

STUDIES = 400
LEAST, MOST = 0.92, 0.985


def measured(study: Study, items: int, seeds: int) -> dict[str, Any]:
    return coverage.measure("test", "a setting", items, seeds, study, STUDIES)


@pytest.mark.parametrize("seeds", [5, 10])
def test_accuracy_where_seeds_vary(seeds: int) -> None:
    """And the two halves of the error: with the posts' part alone, or the seeds' part alone, the same studies are missed far too often."""
    found = measured(studies.accuracy(0.75, 500, seeds, 0.04, 0.2), 500, seeds)
    assert LEAST <= found["coverage"] <= MOST
    assert found["items_only"] < 0.88
    assert found["seeds_only"] < 0.88


def test_accuracy_where_seeds_agree() -> None:
    found = measured(studies.accuracy(0.75, 200, 5, 0.003, 0.1), 200, 5)
    assert LEAST <= found["coverage"] <= MOST
    assert found["seeds_only"] < 0.6


def test_accuracy_near_one_is_missed_on_both_sides_alike() -> None:
    """A symmetric interval lies above the truth far more often than below it."""
    study, blocks = studies.accuracy(0.95, 200, 5, 0.01, 0.1), list(statistics.weights(200, 200, 0))
    misses = {share: np.zeros(2) for share in (True, False)}
    for k in range(STUDIES):
        sample = statistics.resample(study.draw(generator(k, "near one")), [study.metric], lambda: iter(blocks))["accuracy"]
        for share, count in misses.items():
            found = statistics.estimate(sample, 0.95, (0.0, 1.0), share=share)
            count += found.low > study.truth, found.high < study.truth
    assert misses[True].sum() / STUDIES <= 1 - LEAST
    assert misses[True][0] <= 3 * misses[True][1]
    assert misses[False][0] > 3 * misses[False][1]


def test_f1_of_a_rare_class() -> None:
    assert LEAST <= measured(studies.f1("f1_positive", 0.1, 0.6, 0.05, 200, 5, 0.02), 200, 5)["coverage"] <= MOST


def test_calibration_error_of_a_calibrated_model() -> None:
    """Its estimate is always too high; without the correction for that the truth is hardly ever inside."""
    study, blocks = studies.probabilities("ece", 1.0, 200, 3), list(statistics.weights(200, 200, 0))
    inside = dict.fromkeys((True, False), 0)
    for k in range(STUDIES // 2):
        sample = statistics.resample(study.draw(generator(k, "ece")), [study.metric], lambda: iter(blocks))["ece"]
        for corrected in inside:
            found = statistics.estimate(sample, 0.95, (0.0, 1.0), bias=study.metric.bias if corrected else (0.0, 0.0))
            assert found.low <= found.mean <= found.high
            inside[corrected] += found.low <= study.truth <= found.high
    assert inside[True] / (STUDIES // 2) >= 0.9
    assert inside[False] / (STUDIES // 2) < 0.4


@pytest.mark.parametrize("layout", ["one far below", "all tie"])
def test_worst_group(layout: str) -> None:
    """Where all groups tie the lowest is too low; where one lies far below but is small, which group is worst is itself uncertain."""
    study = studies.worst_group(coverage.LAYOUTS[layout], coverage.SHARES, 200, 5, 0.01)
    blocks = list(statistics.weights(200, 200, 0))
    shipped = plain = 0
    for k in range(STUDIES):
        drawn = study.draw(generator(k, "worst", layout))
        samples = statistics.resample(drawn, [study.metric, *study.others], lambda: iter(blocks))
        found = scoring.interval(study.metric, samples, drawn, 0.95)
        naive = statistics.estimate(samples["worst_group"], 0.95, (0.0, 1.0), share=True)
        shipped += found.low <= study.truth <= found.high
        plain += naive.low <= study.truth <= naive.high
    assert shipped / STUDIES >= 0.9
    assert shipped > plain


def test_paired_tests_keep_their_level_and_find_differences() -> None:
    """Ten methods like the reference: Holm lets one of them pass in at most 5 % of studies (400 know that to 1.1 points); single tests would in many."""
    blocks = list(statistics.weights(200, 200, 0))
    any_holm = any_single = found_real = 0
    draw = studies.methods([0.75] * 11, 200, 5, 0.02, 0.3)
    better = studies.methods([0.85, 0.75], 200, 5, 0.02, 0.3)
    for k in range(STUDIES // 2):
        reference, *others = coverage._samples(draw, generator(k, "level"), blocks)
        p = [statistics.difference(one, reference, 0.95).p for one in others]
        any_single += min(p) < 0.05
        any_holm += min(statistics.holm(p)) < 0.05
        ours, theirs = coverage._samples(better, generator(k, "power"), blocks)
        found_real += statistics.difference(ours, theirs, 0.95).p < 0.05
    assert any_holm / (STUDIES // 2) <= 0.08
    assert any_single / (STUDIES // 2) > 0.12
    assert found_real / (STUDIES // 2) > 0.8


def test_agreement_over_seeds() -> None:
    """Pairs share seeds: without the pseudo-values the spread over seeds would be taken for half of what it is."""
    assert measured(studies.agreement(0.7, 200, 5, 0.05, 0.3), 200, 5)["coverage"] >= LEAST


def test_summary_names_every_family_and_leaves_out_what_was_not_measured() -> None:
    import polars as pl

    lines = [coverage.measure("accuracy", "x", 200, 3, studies.accuracy(0.75, 200, 3, 0.01, 0.1), 5)]
    lines += [coverage._line("tests", "Holm", 200, 3, 5) | {"false_positives": 0.04}]
    text = coverage.markdown(pl.DataFrame(lines))
    assert "| accuracy | 3 | 1 |" in text
    assert "| Holm | 200 | 3 | 4.0 |  |" in text
