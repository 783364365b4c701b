"""Compares the variants of an ablation with the methods they are variants of."""

from __future__ import annotations

from collections.abc import Sequence

from causalroute.config import Dataset, Evaluate, Replicates
from causalroute.report.ablation import build
from causalroute.stages._cli import run, section_of, stage_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Reports on the ablation of `--dataset`."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True)
    arguments = parser.parse_args(argv)
    config = arguments.config
    build(arguments.dataset, section_of(config, "dataset", Dataset), section_of(config, "evaluate", Evaluate), section_of(config, "replicates", Replicates))
    return 0


if __name__ == "__main__":
    run(main)
