"""`causalroute doctor [FOLDER]`: is the environment fit, and how is it mended? No network but with --online."""

from __future__ import annotations

import argparse
from typing import Any

from causalroute.doctor import command


def add(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers."""
    raw = argparse.RawDescriptionHelpFormatter
    one = commands.add_parser(
        "doctor", help="check the environment, and say how to mend it", description=command.DESCRIPTION, epilog=command.EPILOG, formatter_class=raw
    )
    command.add_arguments(one)
    one.set_defaults(run=command.run)
