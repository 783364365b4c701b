"""The arguments of the examination and what is printed, for the command `causalroute doctor` and for `python -m causalroute.doctor`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from causalroute.doctor.examine import examine
from causalroute.doctor.finding import as_json, as_text

DESCRIPTION = """\
Checks the environment and says how to mend each finding: Python, packages and extras, torch, GPU and the routing kernels, cores and
memory, text encoding, the model hub, caches and free disk; and in a checkout or project folder its params.yaml, its results and locks."""
EPILOG = """\
examples:
  causalroute doctor                       # this folder
  causalroute doctor out --online          # a project folder; also asks whether the model hub answers
  causalroute doctor --deep                # also reads every shard of the feature store
  causalroute doctor --format json
  python -m causalroute.doctor             # the same, where the command itself does not start

exit codes: 0 no problem (there may be warnings); 1 a problem; 2 unusable arguments"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the examination to `parser`."""
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER", help="checkout or project folder to look at (default: this one)")
    parser.add_argument("--online", action="store_true", help="ask whether the model hub answers; nothing else uses the network")
    parser.add_argument("--deep", action="store_true", help="read every shard of the feature store and check its sum")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="what is printed (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Examines and prints; returns 1 where there is a problem, else 0."""
    findings = examine(arguments.folder, online=arguments.online, deep=arguments.deep)
    text = as_json(findings) if arguments.format == "json" else as_text(findings)
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"  # on a terminal without UTF-8 the examination has to say just that
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    return int(any(one.status == "problem" for one in findings))
