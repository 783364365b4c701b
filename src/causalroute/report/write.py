"""Reads what a run left for one data set and writes its report files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from causalroute import io, layout
from causalroute.config import Dataset, Evaluate, Replicates
from causalroute.errors import UserError
from causalroute.evaluation.collect import Facts, prediction_files, read_all, stored_numbers
from causalroute.evaluation.scoring import REFERENCE, Results, score
from causalroute.report import (
    card,
    claims,
    costs,
    grades,
    headline,
    latex,
    made,
    markdown,
    page,
    routing,
    searched,
    shortcuts,
    tables,
    verdict,
    worst,
    worst_page,
)
from causalroute.report.figures import Figure, figures


@dataclass(frozen=True)
class Run:
    """One data set's run: its settings and what is known of it."""

    name: str
    dataset: Dataset
    evaluate: Evaluate
    replicates: Replicates
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    manifest: pl.DataFrame
    results: Results
    parameters: Mapping[str, int]
    made: list[tuple[str, str]]

    @property
    def visual(self) -> str:
        """What the visual side is: image, attributes or none."""
        return str(self.summary.get("visual"))


def build(name: str, dataset: Dataset, evaluate: Evaluate, replicates: Replicates, config: Mapping[str, Any]) -> None:
    """Scores every prediction of the data set and writes the report and, out of git, the pages of errors and of costs.

    Raises:
        UserError: a file of the run is missing or does not fit the others.
    """
    summary = _json(layout.summary(name))
    facts = read_facts(name, dataset, summary)
    results = score(read_all(name, dataset, replicates), facts, dataset, evaluate)
    parameters = stored_numbers(name, dataset, replicates)
    manifest = pl.read_parquet(layout.manifest(name))
    made_from = made.facts(config, summary, manifest)
    run = Run(name, dataset, evaluate, replicates, config, summary, manifest, results, parameters, made_from)
    plots = tables.plot_tables(results, facts, evaluate, read_histories(name, dataset, replicates))
    table = tables.results_table(results, parameters)
    folder = layout.reports(name)
    io.write_json(folder / "metrics.json", tables.metrics_json(results))
    io.write_csv(folder / "results.csv", table)
    for key, plot in plots.items():
        io.write_csv(folder / "plots" / f"{key}.csv", plot)
    _write_texts(folder, run, _drawn(run, {**plots, "results": table}))
    _write_aside(run)


def _drawn(run: Run, plots: Mapping[str, pl.DataFrame]) -> list[Figure]:
    names = {line.method: line.name for line in headline.lines(run.results, (), run.evaluate, run.visual, run.parameters)}
    return [*figures(plots, names), *routing.heatmaps(plots["gates"], names, run.visual)]


def _write_texts(folder: Path, run: Run, drawn: list[Figure]) -> None:
    """The files that go into git."""
    results, evaluate, dataset, visual = run.results, run.evaluate, run.dataset, run.visual
    graded = _json(folder / "counterfactuals.json")
    swaps = headline.fair_swaps(dataset, graded)
    shown = headline.columns(dataset, results, swaps)
    rows = headline.lines(results, shown, evaluate, visual, run.parameters)
    title = f"{run.name}: {dataset.task} from text and {'attributes' if visual == 'attributes' else 'image'}"
    told = claims.sentences(results, evaluate)
    notes = headline.notes(results, evaluate, run.summary, swaps) + searched.notes(run.name, run.config.get("searched", ()))
    known = page.facts(dataset, run.summary, len(results.seeds))
    posts = page.posts(dataset, run.summary, results)
    sizes = ", ".join(f"{split} {count}" for split, count in zip(posts.header[1:], posts.rows[0][1:], strict=True))
    io.write_text(folder / "results.md", markdown.document(title, [*known, ("posts", sizes)], told, shown, rows, notes))
    io.write_text(folder / "results.tex", latex.table(title, run.name, shown, rows, told))
    io.write_text(folder / "README.md", card.card(_card_config(run), tables.metrics_json(results)))
    audit = _json(folder / "audit.json")
    probes = shortcuts.figure(audit)
    content = page.Content(
        title=title, name=run.name, dataset=dataset, facts=known, posts=posts, columns=shown, lines=rows, notes=notes,
        answers=verdict.answers(results, evaluate), verdict=verdict.figure(results, evaluate),
        findings=headline.findings(results, evaluate, visual), control=claims.control_table(results, evaluate),
        figures=[*drawn, *([probes] if probes else [])],
        details=page.details(results, visual, 1 - evaluate.confidence), calibration=page.calibration_rows(results, visual),
        audit=shortcuts.section(audit, run.summary), grades=grades.section(graded, visual), errors=worst.counts(results, dataset.methods),
        settings={key: io.canonical_json(value) for key, value in sorted(run.config.items()) if key != "made_by"},
        made=run.made,
    )  # fmt: skip
    io.write_text(folder / "report.html", page.render(content))


def _card_config(run: Run) -> dict[str, Any]:
    method = headline.subject(run.dataset.methods)
    reference = REFERENCE if REFERENCE in run.results.answers and method != REFERENCE else ""
    return {
        "dataset": run.name, "task": run.dataset.task, "classes": run.dataset.classes, "method": method, "reference": reference, "visual": run.visual,
        "backbone": run.dataset.backbone, "seeds": len(run.results.seeds), "confidence": run.evaluate.confidence,
        "made_by": dict(run.made),
    }  # fmt: skip


def _write_aside(run: Run) -> None:
    """The pages that stay out of git: one shows posts, the other what this machine took."""
    edited = layout.counterfactuals(run.name, run.dataset.editor)
    if not edited.is_file():
        raise UserError("the counterfactuals are missing", where=str(edited), fix="run the workflow: its counterfactuals rule writes this file")
    shown = worst.cards(run.results, run.dataset, run.manifest, pl.read_parquet(edited), layout.raw(run.name), layout.reference_image(run.name))
    method, counts = headline.subject(run.dataset.methods), worst.counts(run.results, run.dataset.methods)
    io.write_text(layout.errors_page(run.name), worst_page.render(run.name, method, run.dataset.editor, shown, counts))
    spent = [costs.trained(run.name, run.dataset, run.replicates, run.parameters), costs.measured(run.name)]
    io.write_text(layout.costs_page(run.name), costs.render(run.name, spent, [*made.here(), *run.made]))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError("a file of an earlier stage is missing", where=str(path), fix="run the workflow: `make reproduce`")
    found: dict[str, Any] = io.read_json(path)
    return found


def read_facts(name: str, dataset: Dataset, summary: Mapping[str, Any]) -> Facts:
    """Train majority and class shares from the summary, pairs from the manifest, planted effects from the truth."""
    counts = summary["splits"]["train"]["labels"]
    majority = max(range(len(dataset.classes)), key=lambda index: (counts.get(dataset.classes[index], 0), -index))
    pairs = pl.read_parquet(layout.manifest(name), columns=["id", "pair"]).drop_nulls()
    truth = pl.read_parquet(layout.truth(name), columns=["id", "effect_text", "effect_image"]) if layout.truth(name).is_file() else pl.DataFrame()
    planted = {} if truth.is_empty() else {key: dict(zip(truth["id"], truth[key], strict=True)) for key in ("effect_text", "effect_image")}
    prior = tuple(counts.get(name, 0) / sum(counts.values()) for name in dataset.classes)
    return Facts(majority, dict(zip(pairs["id"], pairs["pair"], strict=True)), planted, prior)


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
