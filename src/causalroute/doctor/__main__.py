"""`python -m causalroute.doctor`: the same as `causalroute doctor`, without the libraries that the command line itself needs."""

from __future__ import annotations

import argparse
import sys

from causalroute.doctor import command


def main() -> int:
    """Examines, prints, and returns the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m causalroute.doctor", description=command.DESCRIPTION, epilog=command.EPILOG, formatter_class=raw)
    command.add_arguments(parser)
    return command.run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
