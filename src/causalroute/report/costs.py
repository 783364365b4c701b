"""What a run cost on the machine that made it, as a page of its own: clock and memory differ between machines, so no commit takes it.

Training costs are those that each training job leaves in `runs/`, those of other jobs what Snakemake measured. Where results came from another machine
there are none, and the page says so.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from causalroute import io, layout
from causalroute.config import Dataset, Replicates
from causalroute.evaluation.collect import chunks
from causalroute.report.blocks import Table, number
from causalroute.report.html import page

TRAINED = ("method", "parameters", "seeds", "seconds", "seconds per seed", "peak MB", "posts per second")
JOBS = ("job", "seconds", "CPU seconds", "peak MB")
UNKNOWN = "–"


def trained(name: str, dataset: Dataset, replicates: Replicates, parameters: Mapping[str, int]) -> Table:
    """One row per method, over all of its training jobs; `parameters`: numbers that one seed stores."""
    rows = []
    for method in dataset.methods:
        files = [layout.events(name, method, first, last) / "cost.json" for first, last in chunks(replicates)]
        jobs = [io.read_json(file) for file in files if file.is_file()]
        stored = number(parameters[method]) if method in parameters else UNKNOWN
        if len(jobs) < len(files):
            rows.append((method, stored, *[UNKNOWN] * 5))
            continue
        seconds, seeds = sum(job["seconds"] for job in jobs), sum(job["seeds"] for job in jobs)
        seen = sum(job["samples_per_second"] * job["seconds"] for job in jobs)
        peak = max(job["peak_mb"] for job in jobs)
        rows.append(
            (method, stored, str(seeds), f"{seconds:.1f}", f"{seconds / seeds:.1f}", f"{peak:.0f}", number(round(seen / seconds)) if seconds else UNKNOWN)
        )
    return Table(
        "Training", TRAINED, tuple(rows), "All seeds of a method; peak of the process. Posts per second: train posts times epochs times seeds.", ("method",)
    )


def measured(name: str, folder: Path = Path("benchmarks/out")) -> Table:
    """Every job of the data set that Snakemake measured here."""
    rows = []
    for file in sorted((folder / name).rglob("*.tsv")):
        with file.open(encoding="utf-8") as stream:
            found = next(csv.DictReader(stream, delimiter="\t"), {})
        told = [_decimal(found.get(key)) for key in ("s", "cpu_time", "max_rss")]
        rows.append((file.relative_to(folder / name).with_suffix("").as_posix(), *told))
    return Table("Jobs of the workflow", JOBS, tuple(rows), "Start of the interpreter included; reading and writing as well.", ("job",))


def _decimal(value: str | None) -> str:
    try:
        return f"{float(value or ''):.1f}"
    except ValueError:
        return UNKNOWN


def render(name: str, tables: Sequence[Table], made: Sequence[tuple[str, str]]) -> str:
    """The page as text."""
    return page("run.html.j2", {"name": name, "tables": [table for table in tables if table.rows], "made": made}, scripts=["sort.js"])
