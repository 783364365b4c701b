"""What all stage commands share: their arguments, their configuration, their way to fail."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from causalroute.config import parse
from causalroute.errors import UserError
from causalroute.io import canonical_json

T = TypeVar("T")


def stage_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with `--config`, the JSON of just the sections that the stage reads."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, type=json.loads, help="JSON of the sections of params.yaml that this stage reads")
    return parser


def encoding_parser(description: str | None) -> argparse.ArgumentParser:
    """The same for stages that encode the views of a data set."""
    parser = stage_parser(description)
    parser.add_argument("--dataset", required=True, help="key of datasets in params.yaml")
    parser.add_argument("--backbone", required=True, help="key of backbones in params.yaml")
    parser.add_argument("--views", required=True, help="factual, or the key of an editor")
    parser.add_argument("--threads", type=_positive, default=1, help="forward passes at a time (changes no byte of the result)")
    return parser


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def section_of(config: dict[str, Any], key: str, cls: type[T]) -> T:
    """The section `key` of a stage's `--config` as its dataclass."""
    if key not in config:
        raise UserError(f"--config lacks the section {key!r}", fix="pass the JSON that the workflow rule builds")
    return parse(cls, canonical_json(config[key]), where=f"params.yaml: {key}")


def seed_range(text: str) -> range:
    """`0-4` -> range(0, 5)."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def run(main: Callable[[Sequence[str] | None], int]) -> None:
    """Runs a stage and ends the process; a user's mistake is told without a traceback."""
    try:
        sys.exit(main(None))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
