"""`causalroute audit TABLE`: what shortcuts does the data carry? No training, no network."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from causalroute.config import Audit

DESCRIPTION = """\
Searches a table of posts for shortcuts: cues that tell the label without the meaning. Tokens, n-grams, surface forms, image
statistics and files, metadata; what each side alone predicts; how much the cues explain together; duplicates and leaks.
Writes audit.json, audit.html (one file, no network) and dropped.csv, and prints a summary."""
EXAMPLES = """\
examples:
  causalroute audit posts.csv
  causalroute audit posts.jsonl --text tweet --label mood --image photo --root photos/ --metadata country source
  causalroute audit posts.parquet --split fold --control fdr --alpha 0.01 --output-dir out
  causalroute audit posts.csv --fail-on leaks=0 --fail-on joint=0.05      # a check for continuous integration
  causalroute audit posts.csv --format json | jq '.shortcuts[].cue'

measures for --fail-on (exit code 1 when the value found is larger):
  shortcuts explains joint effect auc surface missing leaks near_leaks conflicts   (docs/audit.md)

exit codes: 0 done, no limit exceeded; 1 a limit of --fail-on exceeded; 2 unusable arguments or data"""


def add(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers."""
    one = commands.add_parser(
        "audit", help="find the shortcuts in a table of posts", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Audit()
    one.add_argument("table", type=Path, help="CSV, TSV, JSONL or Parquet, one post a row, UTF-8")
    columns = one.add_argument_group("columns (guessed where left out; '' means there is none)")
    for name, what in {"text": "text", "label": "label", "image": "image path", "split": "train / valid / test", "id": "unique id"}.items():
        columns.add_argument(f"--{name}", metavar="COLUMN", help=f"column with the {what}")
    columns.add_argument("--metadata", nargs="+", default=[], metavar="COLUMN", help="further columns to test: source, date, author, OCR text, ...")
    columns.add_argument("--classes", nargs="+", default=[], metavar="LABEL", help="labels to compare; rows with others are listed (default: all labels)")
    columns.add_argument("--root", type=Path, metavar="FOLDER", help="folder that image paths are relative to (default: the table's)")
    columns.add_argument("--features", type=Path, metavar="FILE", help="safetensors with image features, one row per row of the table")
    tests = one.add_argument_group("tests")
    tests.add_argument("--alpha", type=float, default=default.alpha, help="error rate over all tests (default: %(default)s)")
    tests.add_argument("--control", choices=("fwer", "fdr"), default=default.control, help="Bonferroni or Benjamini-Hochberg (default: %(default)s)")
    tests.add_argument("--min-count", type=int, default=default.min_count, metavar="N", help="posts that must hold a cue (default: %(default)s)")
    tests.add_argument("--folds", type=int, default=default.folds, metavar="K", help="cross-fitting folds (default: %(default)s)")
    tests.add_argument("--seed", type=int, default=default.seed, help="seed of folds and clusters (default: %(default)s)")
    output = one.add_argument_group("output")
    output.add_argument("--output-dir", type=Path, default=Path("audit"), metavar="FOLDER", help="where the files go (default: %(default)s)")
    output.add_argument("--format", choices=("text", "json", "none"), default="text", help="what is printed (default: %(default)s)")
    output.add_argument("--examples", type=int, default=default.examples, metavar="N", help="posts quoted per cue (default: %(default)s)")
    output.add_argument("--fail-on", action="append", default=[], metavar="MEASURE=LIMIT", help="exit with 1 when exceeded; may be repeated")
    one.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Audits, writes, prints; returns the exit code.

    Raises:
        UserError: the arguments or the data are unusable.
    """
    from causalroute.audit.table import Table, audit_table
    from causalroute.audit.verdict import exceeded, parse_limits
    from causalroute.cli.terminal import summary
    from causalroute.errors import UserError
    from causalroute.io import write_csv, write_json, write_text
    from causalroute.report.audit_page import render

    if not arguments.table.is_file():
        raise UserError("there is no such table", where=str(arguments.table), fix="name a CSV, TSV, JSONL or Parquet file")
    limits = parse_limits(arguments.fail_on)
    columns = {name: getattr(arguments, name) for name in ("text", "label", "image", "split", "id", "root", "features")}
    table = Table(arguments.table, **columns, metadata=tuple(arguments.metadata), classes=tuple(arguments.classes))
    found, dropped = audit_table(table, _settings(arguments))
    over = exceeded(found, limits)
    found["limits"] = {name: {"limit": limit, "exceeded": name in over} for name, limit in limits.items()}
    write_json(arguments.output_dir / "audit.json", found)
    write_text(arguments.output_dir / "audit.html", render(found, arguments.table.name))
    write_csv(arguments.output_dir / "dropped.csv", dropped)
    if arguments.format == "json":
        print(json.dumps(found, sort_keys=True, ensure_ascii=True))
    elif arguments.format == "text":
        print(summary(found, arguments.output_dir), end="")
    for name, (value, limit) in over.items():
        print(f"limit exceeded: {name} is {value:.4g}, allowed {limit:g}", file=sys.stderr)
    return 1 if over else 0


def _settings(arguments: argparse.Namespace) -> Audit:
    from causalroute.errors import UserError

    try:
        names = ("alpha", "control", "min_count", "folds", "examples", "seed")
        return Audit(**{name: getattr(arguments, name) for name in names})
    except ValueError as error:
        raise UserError(str(error), fix="see causalroute audit --help") from None
