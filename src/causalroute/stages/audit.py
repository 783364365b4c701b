"""Writes reports/{dataset}/audit.json: shortcuts, associations, unimodal probes, leaks."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from causalroute import io, layout
from causalroute.audit import audit
from causalroute.config import Audit, Dataset
from causalroute.stages._cli import run, section_of, stage_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stage."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="a key of `datasets`")
    arguments = parser.parse_args(argv)
    section_of(arguments.config, "dataset", Dataset)
    settings = section_of(arguments.config, "audit", Audit)
    manifest = pl.read_parquet(layout.manifest(arguments.dataset))
    found = audit(manifest, io.read_json(layout.summary(arguments.dataset)), settings, layout.raw(arguments.dataset))
    io.write_json(layout.reports(arguments.dataset) / "audit.json", found)
    return 0


if __name__ == "__main__":
    run(main)
