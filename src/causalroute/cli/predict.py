"""`causalroute predict MODEL`: what a saved model says about a post, or about every row of a table."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causalroute.serving.tables import Columns

DESCRIPTION = """\
Predicts with a saved model: the debiased answer, and the biased one of plain training beside it. Give a single post (--text, --image) or a
table. With --explain: total and direct effects, gate and experts, and which words and regions count as core."""
EXAMPLES = """\
examples:
  causalroute predict out/model --text "what a lovely monday #sarcasm" --image photo.jpg --explain
  causalroute predict out/model posts.csv --output predictions.csv
  causalroute predict out/model posts.csv --explain --output predictions.jsonl      # words and regions too
  causalroute predict out/model posts.csv | head

A row that cannot be used keeps its place in the output; its column `error` says why.
exit codes: 0 done; 1 done, but some rows could not be used; 2 unusable arguments or data"""


def add(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers."""
    one = commands.add_parser(
        "predict",
        help="what a saved model says about a post or a table",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("model", type=Path, help="folder of the saved model")
    one.add_argument("table", type=Path, nargs="?", help="CSV, TSV, JSONL or Parquet, one post a row")
    one.add_argument("--explain", action="store_true", help="say why")
    one.add_argument("--backbone", default="", metavar="FOLDER", help="another folder for the frozen encoder")
    post = one.add_argument_group("a single post")
    post.add_argument("--text", help="its text")
    post.add_argument("--image", type=Path, metavar="FILE", help="its image")
    post.add_argument("--attributes", metavar="WORDS", help="attribute words, for a model whose visual side is words")
    columns = one.add_argument_group("columns of a table (guessed where left out; '' means there is none)")
    for name in ("text", "image", "id"):
        columns.add_argument(f"--{name}-column", metavar="COLUMN", help=f"column with the {name}")
    columns.add_argument("--attributes-column", metavar="COLUMN", default="", help="column with attribute words")
    columns.add_argument("--root", type=Path, metavar="FOLDER", help="folder that image paths are relative to (default: the table's)")
    output = one.add_argument_group("output")
    output.add_argument("--output", type=Path, metavar="FILE", help="file to write: .csv, .tsv, .jsonl or .parquet (default: printed)")
    output.add_argument("--format", choices=("text", "json", "csv"), help="what is printed (default: text for a post, csv for a table)")
    one.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Predicts and prints or writes; returns the exit code.

    Raises:
        UserError: the arguments, the model or the data are unusable.
    """
    from causalroute.errors import UserError

    single = any(given is not None for given in (arguments.text, arguments.image, arguments.attributes))
    if single == (arguments.table is not None):
        raise UserError("give either a table, or a post with --text and --image", fix="see causalroute predict --help")
    return _post(arguments) if single else _table(arguments)


def _post(arguments: argparse.Namespace) -> int:
    from causalroute.serving.posts import Post
    from causalroute.serving.predictor import Predictor
    from causalroute.serving.told import told

    predictor = Predictor.load(arguments.model, backbone=arguments.backbone)
    post = Post(arguments.text or "", arguments.image, arguments.attributes)
    (found,) = predictor.predict([post], explain=arguments.explain)
    as_json = json.dumps(found.as_dict(), ensure_ascii=False) + "\n"
    if arguments.output:
        from causalroute.io import write_text

        write_text(arguments.output, as_json)
    else:
        sys.stdout.write(as_json if arguments.format == "json" else told(found, predictor.config))
    return 0


def _table(arguments: argparse.Namespace) -> int:
    from causalroute.serving.predictor import Predictor
    from causalroute.serving.tables import ENDINGS, answer_table, lines, write

    if arguments.output and arguments.output.suffix not in ENDINGS:
        from causalroute.errors import UserError

        raise UserError(f"the ending of {arguments.output.name!r} is unknown", where="--output", fix=f"choose one of {', '.join(ENDINGS)}")
    predictor = Predictor.load(arguments.model, backbone=arguments.backbone)
    columns = _columns(arguments, predictor.config["visual"])
    answered = answer_table(predictor, arguments.table, columns, arguments.root or arguments.table.parent, explain=arguments.explain)
    if arguments.output:
        write(answered, arguments.output)
    else:
        for line in lines(answered, "jsonl" if arguments.format == "json" else "csv"):
            sys.stdout.write(line)
    lost = [one for one in answered if one.error]
    if lost:
        print(f"{len(lost)} of {len(answered)} rows have no prediction; the first, {lost[0].id}: {lost[0].error}", file=sys.stderr)
    return 1 if lost else 0


def _columns(arguments: argparse.Namespace, visual: str) -> Columns:
    """The columns named, or guessed by their names."""
    from causalroute.audit.table import GUESSES, guess
    from causalroute.data.formats.table import open_table
    from causalroute.errors import UserError
    from causalroute.serving.tables import Columns

    names, _ = open_table(arguments.table)
    found: dict[str, str] = {}
    for key in ("text", "image", "id"):
        given = getattr(arguments, f"{key}_column")
        found[key] = guess(names, GUESSES[key], set(found.values())) if given is None else given
    if not found["text"] and not found["image"]:
        fix = f"name it with --text-column; the table has {names}"
        raise UserError("no column looks like the text", where=str(arguments.table), fix=fix)
    if visual != "image":
        found["image"] = ""
    return Columns(**found, attributes=arguments.attributes_column)
