"""`causalroute evaluate`: how good a saved model is on a labelled table, with intervals, and whether debiasing helped there."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from causalroute.cli.terminal import plain
from causalroute.cli.train import add_columns

DESCRIPTION = """\
Asks a saved model about every post of a labelled table and prints accuracy, macro F1, calibration, each class and each group, with
95 % intervals over the posts; beside it the biased reference of the model, with a paired interval of the difference."""
EXAMPLES = """\
examples:
  causalroute evaluate causalroute-run/model other_posts.csv
  causalroute evaluate model posts.csv --only split=test --group country source
  causalroute evaluate model posts.parquet --format json | jq .metrics.accuracy

Posts that the model was trained on flatter it: take others, or name the test rows with --only.
exit codes: 0 done; 2 unusable arguments or data"""
NAMES = {"accuracy": "accuracy", "f1_macro": "macro F1", "f1_weighted": "weighted F1", "ece": "calibration error", "worst_group": "worst group"}
LISTED = 10
"""Dropped rows that are printed."""


def add(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers."""
    one = commands.add_parser(
        "evaluate",
        help="metrics of a saved model on a labelled table",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("model", type=Path, help="folder of a saved model")
    one.add_argument("table", type=Path, help="CSV, TSV, JSONL or Parquet, one post a row, UTF-8")
    add_columns(one, "")
    one.add_argument("--group", nargs="+", default=[], metavar="COLUMN", help="columns whose values are groups: accuracy of each, and of the worst")
    one.add_argument("--only", default="", metavar="COLUMN=VALUE", help="look at these rows alone, such as split=test")
    one.add_argument("--backbone", default="", metavar="FOLDER", help="the frozen encoder, where the model does not find it")
    one.add_argument("--format", choices=("text", "json"), default="text", help="what is printed (default: %(default)s)")
    one.add_argument("--output-dir", type=Path, metavar="FOLDER", help="also write evaluation.json and dropped.csv there")
    one.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluates and prints; returns the exit code.

    Raises:
        UserError: the model, the arguments or the data are unusable.
    """
    from causalroute.audit.table import Table
    from causalroute.config import Evaluate
    from causalroute.io import write_csv, write_json
    from causalroute.serving import judge
    from causalroute.serving.predictor import Predictor

    columns = {name: getattr(arguments, name) for name in ("text", "label", "image", "id", "root")}
    predictor = Predictor.load(arguments.model, backbone=arguments.backbone)
    rows = judge.read(Table(arguments.table, **columns), predictor.classes, only=arguments.only, families=arguments.group)
    answers = judge.answer(predictor, rows)
    verdict = judge.judge(predictor, answers, Evaluate())
    if arguments.output_dir:
        write_json(arguments.output_dir / "evaluation.json", verdict)
        write_csv(arguments.output_dir / "dropped.csv", answers.rows.dropped)
    if arguments.format == "json":
        print(json.dumps(verdict, sort_keys=True, ensure_ascii=True, allow_nan=False))
    else:
        print("\n".join([*text(verdict), *_left_out(answers.rows.dropped.rows())]))
    return 0


def text(verdict: Mapping[str, Any]) -> list[str]:
    """The verdict for a terminal."""
    shown = f"{plain(verdict['table'], 60).rstrip()}: {verdict['rows']} rows, {verdict['used']} used; model: {verdict['method']}"
    lines = [shown, *(f"  {plain(note, 150).rstrip()}" for note in verdict["notes"])]
    lines += ["", f"METRICS ({100 * verdict['confidence']:g} % interval over posts)"]
    lines += [f"  {NAMES[name]:<20} {_interval(found)}" for name, found in verdict["metrics"].items()]
    if worst := verdict["worst_group"]:
        lines.append(f"  {NAMES['worst_group']:<20} {_interval(worst)}  {plain(worst['group'], 40).rstrip()}")
    lines += ["", f"CLASSES                    posts  {'precision':<20} {'recall':<20} F1"]
    for label, found in verdict["classes"].items():
        lines.append(f"  {plain(label, 24)} {found['posts']:>5}  {_interval(found['precision']):<20} {_interval(found['recall']):<20} {_interval(found['f1'])}")
    for family, named in verdict["groups"].items():
        lines += ["", f"GROUPS {plain(family, 24).rstrip()}"]
        lines += [f"  {plain(name, 24)} {found['posts']:>5}  {_interval(found['accuracy'])}" for name, found in named.items()]
    return lines + (_against(verdict["biased"]) if verdict["biased"] else [])


def _interval(found: Mapping[str, float]) -> str:
    return f"{100 * found['value']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _against(biased: Mapping[str, Any]) -> list[str]:
    lines = ["", f"AGAINST THE BIASED MODEL ({biased['method']}) on the same posts"]
    for name, found in biased["difference"].items():
        change = f"{100 * found['mean']:+.1f} points [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
        lines.append(f"  {NAMES[name]:<20} biased {_interval(biased['metrics'][name])}; debiased - biased {change}, p {_p(found['p'])}")
    test = biased["mcnemar"]
    told = f"only the debiased is right {test['only_debiased_right']} times, only the biased {test['only_biased_right']}"
    return [*lines, f"  {told} (McNemar, exact p {_p(test['p'])})"]


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}"


def _left_out(dropped: list[tuple[str, str, str]]) -> list[str]:
    if not dropped:
        return []
    lines = ["", f"LEFT OUT: {len(dropped)} rows"] + [f"  {reason}: {plain(where, 140).rstrip()}" for _, reason, where in dropped[:LISTED]]
    return lines + ([f"  ... and {len(dropped) - LISTED} more (--output-dir FOLDER writes all of them)"] if len(dropped) > LISTED else [])
