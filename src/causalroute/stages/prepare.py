"""Checks the raw posts of one data set and writes its manifest, test labels, truth, rewrites, dropped posts and summary."""

from __future__ import annotations

from collections.abc import Sequence

from causalroute.config import Dataset
from causalroute.data.manifest import prepare
from causalroute.stages._cli import run, section_of, stage_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares `--dataset`."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True)
    arguments = parser.parse_args(argv)
    prepare(section_of(arguments.config, "dataset", Dataset), arguments.dataset)
    return 0


if __name__ == "__main__":
    run(main)
