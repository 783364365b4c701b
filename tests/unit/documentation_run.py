"""Runs the steps of one page in the working folder: `python -m tests.unit.documentation_run STEPS.json PAGE`.

It is a process of its own, for examples may change what the package knows.
A table that a command names and that no block made is made here, with the columns that the command names.
"""

from __future__ import annotations

import argparse
import json
import random
import runpy
import sys
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

from causalroute import cli

ROWS = 60


def table(arguments: argparse.Namespace) -> None:
    """Posts whose hashtag goes with the label, with small pictures, as the audit is told to read them."""
    path: Path = arguments.table
    if path.exists():
        return
    root = arguments.root or path.parent
    root.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    labels = [("good", "bad")[row % 2] for row in range(ROWS)]
    words = [" ".join(draw.sample(["a", "market", "street", "with", "coffee", "and", "some", "bread", "by", "the", "river"], 5)) for _ in range(ROWS)]
    for row in range(ROWS):
        Image.new("RGB", (16, 16), (draw.randrange(256), draw.randrange(256), 90)).save(root / f"{row}.png")
    columns: dict[str, list[Any]] = {
        arguments.text or "text": [f"{text} {'#sun' if label == 'good' else '#rain'}" for text, label in zip(words, labels, strict=True)],
        arguments.label or "label": labels,
        arguments.image or "image": [f"{row}.png" for row in range(ROWS)],
    }
    for name in arguments.metadata:
        columns[name] = [draw.choice("abc") for _ in range(ROWS)]
    if arguments.split:
        columns[arguments.split] = ["train" if row % 5 else "test" for row in range(ROWS)]
    frame = pl.DataFrame(columns)
    write = {".csv": frame.write_csv, ".tsv": lambda file: frame.write_csv(file, separator="\t"), ".jsonl": frame.write_ndjson, ".parquet": frame.write_parquet}
    write[path.suffix](path)


def command(words: list[str]) -> int:
    """Runs one command as the shell would; returns its exit code."""
    if words[0] == "causalroute" and not {"--help", "--version"} & set(words):
        parsed = cli.parser().parse_args(words[1:])
        if parsed.command == "audit":
            table(parsed)
        return cli.run(words[1:])
    sys.argv = ["causalroute", *(words[1:] if words[0] == "causalroute" else words[3:])]
    try:
        runpy.run_module("causalroute" if words[0] == "causalroute" else words[2], run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def main() -> None:
    """Runs the steps; ends with their first error."""
    space: dict[str, Any] = {"__name__": "__main__"}
    for line, kind, what in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        if kind == "python":
            exec(compile("\n" * line + what, PAGE, "exec"), space)
        else:
            code = command(what)
            limited = "--fail-on" in what
            if code not in ((0, 1) if limited else (0,)):
                sys.exit(f"{PAGE}:{line}: {' '.join(what)} ended with {code}")


if __name__ == "__main__":
    PAGE = sys.argv[2]
    main()
