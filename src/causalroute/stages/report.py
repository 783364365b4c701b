"""Collects all predictions of one data set into metrics, tables, figures and the page a reader opens."""

from __future__ import annotations

from collections.abc import Sequence

from causalroute.config import Dataset, Evaluate, Replicates
from causalroute.report.write import build
from causalroute.stages._cli import run, section_of, stage_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Reports on `--dataset`."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True)
    arguments = parser.parse_args(argv)
    config = arguments.config
    sections = section_of(config, "dataset", Dataset), section_of(config, "evaluate", Evaluate), section_of(config, "replicates", Replicates)
    build(arguments.dataset, *sections, config=config)
    return 0


if __name__ == "__main__":
    run(main)
