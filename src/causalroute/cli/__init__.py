"""The command `causalroute`: one sub-command a module, each with `add(subparsers)` and `run(arguments) -> exit code`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

import shtab

from causalroute import __version__
from causalroute.errors import UserError

COMMANDS = ("audit", "train", "predict", "evaluate", "report", "serve", "export", "doctor")
"""Modules of this package, in the order of `--help`."""
BAD_INPUT = 2
"""Exit code for unusable input or arguments; argparse uses it as well."""


def parser() -> argparse.ArgumentParser:
    """The parser of all sub-commands."""
    top = argparse.ArgumentParser(prog="causalroute", description="Finds shortcuts in text + image data and trains past them.")
    top.add_argument("--version", action="version", version=f"causalroute {__version__}")
    shtab.add_argument_to(top, ["--print-completion"], help="print the completion script of a shell, and end")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f"causalroute.cli.{name}").add(commands)
    return top


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one sub-command; a user's mistake is told without a traceback. Returns the exit code."""
    parsed = parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


def main() -> None:
    """Entry point of the command."""
    sys.exit(run())
