"""Reads what a run left for one data set and writes its report files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from causalroute import io, layout
from causalroute.config import Dataset, Evaluate, Replicates
from causalroute.errors import UserError
from causalroute.evaluation.collect import Facts, prediction_files, read_all, stored_numbers
from causalroute.evaluation.scoring import Results, score
from causalroute.report import claims, grades, headline, markdown, page, searched, shortcuts, tables
from causalroute.report.figures import Figure, figures


def build(name: str, dataset: Dataset, evaluate: Evaluate, replicates: Replicates, config: Mapping[str, Any]) -> None:
    """Scores every prediction of the data set and writes metrics.json, results.{csv,md}, plots/ and report.html.

    Raises:
        UserError: a file of the run is missing or does not fit the others.
    """
    summary = _json(layout.summary(name))
    facts = read_facts(name, dataset, summary)
    results = score(read_all(name, dataset, replicates), facts, dataset, evaluate)
    parameters = stored_numbers(name, dataset, replicates)
    names = {line.method: line.name for line in headline.lines(results, (), evaluate, str(summary.get("visual")), parameters)}
    plots = tables.plot_tables(results, facts, evaluate, read_histories(name, dataset, replicates))
    table = tables.results_table(results, parameters)
    drawn = figures({**plots, "results": table}, names)
    folder = layout.reports(name)
    io.write_json(folder / "metrics.json", tables.metrics_json(results))
    io.write_csv(folder / "results.csv", table)
    for key, table in plots.items():
        io.write_csv(folder / "plots" / f"{key}.csv", table)
    _write_texts(folder, name, dataset, evaluate, results, summary, drawn, config, parameters)


def _write_texts(
    folder: Path, name: str, dataset: Dataset, evaluate: Evaluate, results: Results, summary: Mapping[str, Any], drawn: list[Figure],
    config: Mapping[str, Any], parameters: Mapping[str, int],
) -> None:  # fmt: skip
    visual = str(summary.get("visual"))
    graded = _json(folder / "counterfactuals.json")
    swaps = headline.fair_swaps(dataset, graded)
    shown = headline.columns(dataset, results, swaps)
    rows = headline.lines(results, shown, evaluate, visual, parameters)
    title = f"{name}: {dataset.task} from text and {'attributes' if visual == 'attributes' else 'image'}"
    told = claims.sentences(results, evaluate)
    notes = headline.notes(results, evaluate, summary, swaps) + searched.notes(name, config.get("searched", ()))
    known = page.facts(dataset, summary, len(results.seeds))
    posts = page.posts(dataset, summary, results)
    sizes = ", ".join(f"{split} {count}" for split, count in zip(posts.header[1:], posts.rows[0][1:], strict=True))
    io.write_text(folder / "results.md", markdown.document(title, [*known, ("posts", sizes)], told, shown, rows, notes))
    audit = _json(folder / "audit.json")
    probes = shortcuts.figure(audit)
    content = page.Content(
        title=title, name=name, dataset=dataset, facts=known, posts=posts, claims=told, columns=shown, lines=rows,
        findings=headline.findings(results, evaluate, visual), control=claims.control_table(results, evaluate), notes=notes,
        figures=[*drawn, *([probes] if probes else [])],
        details=page.details(results, visual, 1 - evaluate.confidence), calibration=page.calibration_rows(results, visual),
        audit=shortcuts.section(audit, summary), grades=grades.section(graded, visual),
        settings={key: io.canonical_json(value) for key, value in sorted(config.items())},
        digest=io.sha256_bytes(io.canonical_json(config).encode())[:16],
    )  # fmt: skip
    io.write_text(folder / "report.html", page.render(content))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError("a file of an earlier stage is missing", where=str(path), fix="run the workflow: `make reproduce`")
    found: dict[str, Any] = io.read_json(path)
    return found


def read_facts(name: str, dataset: Dataset, summary: Mapping[str, Any]) -> Facts:
    """Train majority from the summary, pairs from the manifest, planted effects from the truth."""
    counts = summary["splits"]["train"]["labels"]
    majority = max(range(len(dataset.classes)), key=lambda index: (counts.get(dataset.classes[index], 0), -index))
    pairs = pl.read_parquet(layout.manifest(name), columns=["id", "pair"]).drop_nulls()
    truth = pl.read_parquet(layout.truth(name), columns=["id", "effect_text", "effect_image"]) if layout.truth(name).is_file() else pl.DataFrame()
    planted = {} if truth.is_empty() else {key: dict(zip(truth["id"], truth[key], strict=True)) for key in ("effect_text", "effect_image")}
    return Facts(majority, dict(zip(pairs["id"], pairs["pair"], strict=True)), planted)


def read_histories(name: str, dataset: Dataset, replicates: Replicates) -> dict[str, pl.DataFrame]:
    """history.csv of every method; methods fitted in one go have one row per seed and no train loss."""
    found = {}
    for method in dataset.methods:
        parts = []
        for file in prediction_files(name, method, replicates):
            history = file.with_name("history.csv")
            if not history.is_file():
                raise UserError("a training history is missing", where=str(history), fix="run the workflow: its train rule writes this file")
            parts.append(pl.read_csv(history, infer_schema_length=None))
        found[method] = pl.concat(parts, how="diagonal_relaxed")
    return found
