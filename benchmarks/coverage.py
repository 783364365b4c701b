"""Whether 95 % intervals cover the truth in 95 % of studies, and whether the tests err as rarely as they say: simulation of whole studies.

    OMP_NUM_THREADS=1 python -m benchmarks.coverage [--studies 1000] [--only accuracy]

Each line of benchmarks/out/coverage.csv is one setting (`studies.py` draws its posts and seeds): in how many studies the shipped interval holds the truth,
or lies above or below it, and what two simpler ones would do, the interval over items alone (seeds taken as fixed) and the t interval over seeds alone
(items taken as fixed). For tests: how often p < .05 without a difference, and with one. `--only` renews the lines of one family and keeps the others.
The binomial error of 1000 studies is .7 points. coverage.md sums the lines up; docs/evaluation.md shows it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from benchmarks import studies
from benchmarks.studies import Study

from causalroute import io
from causalroute.evaluation import scoring, statistics
from causalroute.evaluation.metrics import registry
from causalroute.evaluation.statistics import Sample
from causalroute.rng import generator

CONFIDENCE, RESAMPLES = 0.95, 400
SIZES, SEEDS = (200, 1000), (3, 5, 10)
REGIMES = {"alike": (0.003, 0.1), "vary": (0.02, 0.1), "vary, noisy": (0.02, 0.5), "far apart": (0.05, 0.3)}
"""Spread of the seeds in accuracy, and the share of post-by-seed noise."""
LAYOUTS = {"one far below": (0.9, 0.85, 0.8, 0.6), "two near": (0.95, 0.95, 0.95, 0.9), "all tie": (0.8, 0.8, 0.8, 0.8)}
SHARES = (0.4, 0.3, 0.2, 0.1)
FAMILY = 10
"""methods that are compared with one reference"""
NUMBERS = ("truth", "coverage", "above", "below", "width", "items_only", "seeds_only", "false_positives", "power")


def settings(family: str) -> Iterator[tuple[str, int, int, Study]]:
    """(what, items, seeds, study) of every setting of a family of intervals."""
    grid = [(n, s) for n in SIZES for s in SEEDS]
    if family == "accuracy":
        cells = [(value, name, n, s) for value in (0.5, 0.75, 0.95) for name in REGIMES if value < 0.9 or name != "far apart" for n, s in grid]
        yield from ((f"{value}, seeds {name}", n, s, studies.accuracy(value, n, s, *REGIMES[name])) for value, name, n, s in cells)
    elif family == "accuracy near 1":
        yield from (
            (f"0.99, seeds {name}", n, s, studies.accuracy(0.99, n, s, spread, 0.1)) for name, spread in (("alike", 0.001), ("vary", 0.004)) for n, s in grid
        )
    elif family == "f1":
        for n, s in grid:
            yield "f1_positive, rare class (10 %)", n, s, studies.f1("f1_positive", 0.1, 0.6, 0.05, n, s, 0.02)
            yield "f1_positive, 40 %", n, s, studies.f1("f1_positive", 0.4, 0.8, 0.05, n, s, 0.02)
            yield "f1_macro, 40 %, good", n, s, studies.f1("f1_macro", 0.4, 0.95, 0.05, n, s, 0.01)
    elif family == "worst_group":
        yield from ((name, n, s, studies.worst_group(values, SHARES, n, s, 0.01)) for name, values in LAYOUTS.items() for n, s in grid)
    elif family in ("ece", "nll", "brier"):
        yield from ((f"log-odds x {factor}", n, s, studies.probabilities(family, factor, n, s)) for factor in (1.0, 1.5, 2.5) for n, s in grid)
    elif family == "gate_agreement":
        yield from ((f"seeds {name}", n, s, studies.agreement(0.7, n, s, *REGIMES[name])) for name in ("alike", "vary, noisy", "far apart") for n, s in grid)


FAMILIES = ("accuracy", "accuracy near 1", "f1", "worst_group", "ece", "nll", "brier", "gate_agreement", "difference", "tests")


def measure(family: str, what: str, items: int, seeds: int, study: Study, count: int) -> dict[str, Any]:
    """Coverage of one setting."""
    blocks = list(statistics.weights(items, RESAMPLES, 0, "coverage"))
    found = np.zeros((3, 2))  # shipped, items only, seeds only; interval above, below the truth
    width = 0.0
    for k in range(count):
        drawn = study.draw(generator(k, "coverage", family, what, items, seeds))
        samples = statistics.resample(drawn, [study.metric, *study.others], lambda: iter(blocks))
        shipped = scoring.interval(study.metric, samples, drawn, CONFIDENCE)
        sample = samples[study.metric.name]
        intervals = ((shipped.low, shipped.high), items_only(sample), statistics.t_interval(sample.point, CONFIDENCE))
        for i, (low, high) in enumerate(intervals):
            found[i] += low > study.truth, high < study.truth
        width += shipped.high - shipped.low
    share = 1 - found.sum(1) / count
    outside = {"above": found[0, 0] / count, "below": found[0, 1] / count, "items_only": share[1], "seeds_only": share[2]}
    return _line(family, what, items, seeds, count) | {"truth": study.truth, "coverage": share[0], "width": width / count} | outside


def items_only(sample: Sample) -> tuple[float, float]:
    """What a bootstrap of the items alone would say of the mean over seeds."""
    middle, half = float(sample.point.mean()), 1.96 * float(sample.resampled.mean(1).std(ddof=1))
    return middle - half, middle + half


def _line(family: str, what: str, items: int, seeds: int, count: int) -> dict[str, Any]:
    return {"family": family, "what": what, "items": items, "seeds": seeds, "studies": count} | dict.fromkeys(NUMBERS)


def _samples(draw: Any, rng: np.random.Generator, blocks: list[statistics.Weights]) -> list[Sample]:
    metric = registry()["accuracy"]
    return [statistics.resample(one, [metric], lambda: iter(blocks))["accuracy"] for one in draw(rng)]


def differences(count: int) -> Iterator[dict[str, Any]]:
    """Paired differences of two methods on the same items: coverage, and how often p < .05."""
    cells = [(value, gain, name) for value, gain in ((0.5, 0.0), (0.75, 0.05), (0.95, 0.0), (0.95, 0.02)) for name in ("alike", "vary, noisy")]
    for (value, gain, name), items, seeds in ((cell, n, s) for cell in cells for n in SIZES for s in SEEDS):
        what = f"{value} + {gain}, seeds {name}"
        draw = studies.methods((value + gain, value), items, seeds, *REGIMES[name])
        blocks = list(statistics.weights(items, RESAMPLES, 0, "coverage"))
        above = below = significant = 0
        width = 0.0
        for k in range(count):
            ours, theirs = _samples(draw, generator(k, "coverage", "difference", what, items, seeds), blocks)
            found = statistics.difference(ours, theirs, CONFIDENCE)
            above, below, significant = above + (found.low > gain), below + (found.high < gain), significant + (found.p < 0.05)
            width += found.high - found.low
        numbers = {"truth": gain, "coverage": 1 - (above + below) / count, "above": above / count, "below": below / count, "width": width / count}
        yield _line("difference", what, items, seeds, count) | numbers | {"power" if gain else "false_positives": significant / count}


def tests(count: int) -> Iterator[dict[str, Any]]:
    """Ten methods against one reference, with Holm: any false positive where none or half of them differ, and the share of real differences found."""
    for gain, items, seeds in ((gain, n, s) for gain in (0.0, 0.05) for n in SIZES for s in SEEDS):
        better = FAMILY // 2 if gain else 0
        draw = studies.methods([0.75] + [0.75 + gain] * better + [0.75] * (FAMILY - better), items, seeds, 0.01, 0.3)
        blocks = list(statistics.weights(items, RESAMPLES, 0, "coverage"))
        wrong = right = 0.0
        for k in range(count):
            reference, *others = _samples(draw, generator(k, "coverage", "tests", gain, items, seeds), blocks)
            p = statistics.holm([statistics.difference(one, reference, CONFIDENCE).p for one in others])
            wrong += any(one < 0.05 for one in p[better:])
            right += sum(one < 0.05 for one in p[:better])
        what = f"Holm over {FAMILY} methods, {better} of them better by {gain}"
        yield _line("tests", what, items, seeds, count) | {"truth": gain, "false_positives": wrong / count, "power": right / count / better if better else None}


def lines(family: str, count: int) -> Iterator[dict[str, Any]]:
    """All lines of a family."""
    if family == "difference":
        yield from differences(count)
    elif family == "tests":
        yield from tests(count)
    else:
        yield from (measure(family, *setting, count) for setting in settings(family))


def markdown(table: pl.DataFrame) -> str:
    """Two tables, by family and number of seeds: the mean and the range over settings."""
    head = [
        "| interval of | seeds | settings | coverage: mean | lowest | highest | items only, lowest | seeds only, lowest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    part = table.filter(pl.col("coverage").is_not_null())
    for (family, seeds), rows in part.group_by(["family", "seeds"], maintain_order=True):
        values = (rows["coverage"].mean(), rows["coverage"].min(), rows["coverage"].max(), rows["items_only"].min(), rows["seeds_only"].min())
        head.append(f"| {family} | {seeds} | {len(rows)} | " + " | ".join(map(_percent, values)) + " |")
    head += ["", "| test | items | seeds | false positives | power |", "|---|---|---|---|---|"]
    for row in table.filter(pl.col("family") == "tests").iter_rows(named=True):
        head.append(f"| {row['what']} | {row['items']} | {row['seeds']} | {_percent(row['false_positives'])} | {_percent(row['power'])} |")
    return "\n".join(head) + "\n"


def _percent(value: Any) -> str:
    return "" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def main() -> None:
    """Writes coverage.csv and coverage.md."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--only", choices=FAMILIES)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"))
    args = parser.parse_args()
    file = args.out / "coverage.csv"
    kept = pl.read_csv(file).rows(named=True) if args.only and file.is_file() else []
    found = [row for row in kept if row["family"] != args.only]
    for family in [args.only] if args.only else FAMILIES:
        for line in lines(family, args.studies):
            print(
                f"{family}, {line['what']}, {line['items']} items, {line['seeds']} seeds:",
                *(f"{k} {_percent(line[k])}" for k in NUMBERS[1:] if line[k] is not None),
            )
            found.append(line)
    order = {family: i for i, family in enumerate(FAMILIES)}
    schema = {"family": pl.String, "what": pl.String, "items": pl.Int64, "seeds": pl.Int64, "studies": pl.Int64} | dict.fromkeys(NUMBERS, pl.Float64)
    table = pl.DataFrame(sorted(found, key=lambda row: (order[row["family"]], row["seeds"])), schema=schema, orient="row")
    table = table.with_columns(pl.col(NUMBERS).round(5))
    io.write_csv(file, table)
    io.write_text(args.out / "coverage.md", markdown(table))


if __name__ == "__main__":
    main()
