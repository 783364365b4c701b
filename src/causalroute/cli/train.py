"""`causalroute train`: a table of posts -> audit, trained models, report and a saved model, with one command and no edits to any file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causalroute.project.settings import Wanted

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""
DESCRIPTION = """\
Guesses the columns and classes of a table, searches it for shortcuts, makes counterfactuals, trains debiased models beside baselines
with several seeds, and writes a report with intervals and paired tests. Everything lies in one project folder: a run that ended early
goes on there, a second call says that all is up to date, and a change does again only what depends on it."""
EXAMPLES = """\
examples:
  causalroute train posts.csv
  causalroute train posts.csv --text tweet --label mood --image photo --root photos/ --output-dir mood
  causalroute train posts.csv --backbone minilm+models/mobilenet --seeds 3 --dry-run
  causalroute train posts.csv --config train.lr=0.003 --config datasets.posts.editor=estimated
  causalroute train posts.csv --backbone small --seeds 2 --epochs 5     # a trial: no download, knows little of photos

exit codes: 0 done; 2 unusable arguments or data, or a failed step; 130 ended by Ctrl-C (the same command goes on)"""


def add(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers."""
    one = commands.add_parser(
        "train",
        help="audit a table, train debiased models, write the report and save the model",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("table", type=Path, help="CSV, TSV, JSONL or Parquet, one post a row, UTF-8")
    add_columns(one, "train / valid / test (also ood: posts from elsewhere)")
    one.add_argument("--classes", nargs="+", default=[], metavar="LABEL", help="labels to tell apart; rows with others are listed (default: all labels)")
    one.add_argument("--metadata", nargs="+", default=[], metavar="COLUMN", help="further columns: tested by the audit, accuracies by them in the report")
    work = one.add_argument_group("what is made")
    work.add_argument("--backbone", default="clip", metavar="NAME", help="clip, clip-large, siglip2, minilm (text alone), minilm+FOLDER, small (a trial, no "
                      "download), a model folder, OWNER/NAME@COMMIT of the hub, mllm:OWNER/NAME@COMMIT of a multimodal LLM (%(default)s)")  # fmt: skip
    work.add_argument("--looker", default="clip", metavar="NAME", help="what finds the cores of images beside a multimodal LLM (default: %(default)s)")
    work.add_argument("--methods", nargs="+", default=[], metavar="METHOD", help="rows of the result table (default: baselines, erm, double_swap, causal_moe)")
    work.add_argument("--method", default="causal_moe", metavar="METHOD", help="the one that is saved as the model (default: %(default)s)")
    work.add_argument("--seeds", type=int, default=5, metavar="N", help="training seeds of each method (default: %(default)s)")
    work.add_argument("--epochs", type=int, default=40, metavar="N", help="passes over the train posts (default: %(default)s)")
    work.add_argument("--config", action="append", default=[], metavar="KEY=VALUE", help="any key of params.yaml, such as train.lr=0.003; may be repeated")
    run_ = one.add_argument_group("run")
    run_.add_argument("--output-dir", type=Path, default=Path("causalroute-run"), metavar="FOLDER", help="the project folder (default: %(default)s)")
    run_.add_argument("--cores", type=int, default=0, metavar="N", help="cores to use (default: all)")
    run_.add_argument("--dry-run", action="store_true", help="write params.yaml and say what would run")
    run_.add_argument("--force", action="store_true", help="write params.yaml anew even where it was edited; what was there is kept as params.yaml.old")
    one.set_defaults(run=run)


def add_columns(one: argparse.ArgumentParser, split: str) -> None:
    """The flags that name columns, as `causalroute audit` has them; no split column where `split` is empty."""
    columns = one.add_argument_group("columns (guessed where left out; '' means there is none)")
    named = {"text": "text", "label": "label", "image": "image path", "split": split, "id": "unique id"}
    for name, what in named.items():
        if what:
            columns.add_argument(f"--{name}", metavar="COLUMN", help=f"column with the {what}")
    columns.add_argument("--root", type=Path, metavar="FOLDER", help="folder that image paths are relative to (default: the table's)")


def run(arguments: argparse.Namespace) -> int:
    """Trains and tells; returns the exit code.

    Raises:
        UserError: the arguments or the data are unusable, or a step failed.
    """
    from causalroute.errors import UserError
    from causalroute.project import train
    from causalroute.project.run import Lines
    from causalroute.project.workflow import every_core

    for name in ("seeds", "epochs"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} must be at least 1", where=f"--{name} {getattr(arguments, name)}", fix="the default is a good start")
    cores, lines, folder = arguments.cores if arguments.cores > 0 else every_core(), Lines(), arguments.output_dir
    try:
        if arguments.dry_run:
            train.rehearse(wanted(arguments), folder, cores, lines=lines, force=arguments.force)
            return 0
        done = train.train(wanted(arguments), folder, cores, lines=lines, force=arguments.force)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return STOPPED
    print("\n".join(closing(done.folder, done.dataset, done.model, changed=done.changed)))
    return 0


def wanted(arguments: argparse.Namespace) -> Wanted:
    """What the flags ask for."""
    from causalroute.audit.table import Table
    from causalroute.project.settings import Wanted

    columns = {name: getattr(arguments, name) for name in ("text", "label", "image", "split", "id", "root")}
    table = Table(arguments.table, **columns, metadata=tuple(arguments.metadata), classes=tuple(arguments.classes))
    chosen = {name: getattr(arguments, name) for name in ("backbone", "looker", "method", "seeds", "epochs")}
    return Wanted(table, **chosen, methods=tuple(arguments.methods), changes=tuple(arguments.config))


def closing(folder: Path, dataset: str, model: Path | None, *, changed: bool) -> list[str]:
    """The last lines: the answer, where everything is, what can be done next."""
    from causalroute.project import answer

    told = [*([] if changed else ["", "up to date: nothing to be done"]), "", "ANSWER"]
    told += _wrapped([sentence for part in (answer.claims, answer.shortcuts, answer.gates, answer.splits) for sentence in part(folder, dataset)])
    told += ["", "FILES", *(f"  {what:<17} {path}" for what, path in answer.pages(folder, dataset).items())]
    if model is not None:
        told += [f"  {'model':<17} {model}/", "", "NEXT", f'  causalroute predict {model} --text "..." --image photo.jpg', f"  causalroute serve {model}"]
        told += [f"  causalroute evaluate {model} other_posts.csv"]
    return told


def _wrapped(sentences: Sequence[str]) -> list[str]:
    import shutil
    import textwrap

    width = min(120, max(60, shutil.get_terminal_size((100, 24)).columns))
    return [textwrap.fill(sentence, width, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False) for sentence in sentences]
