"""Brings the raw files of one data set: data/{dataset}/raw and source.json."""

from __future__ import annotations

from collections.abc import Sequence

from causalroute.config import Dataset
from causalroute.data.sources import fetch
from causalroute.stages._cli import run, section_of, stage_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Fetches the sources of `--dataset`."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True)
    arguments = parser.parse_args(argv)
    fetch(section_of(arguments.config, "dataset", Dataset), arguments.dataset)
    return 0


if __name__ == "__main__":
    run(main)
