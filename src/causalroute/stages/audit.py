"""Writes reports/{dataset}/audit.json and data/{dataset}/audit.html: shortcuts, associations, unimodal probes, leaks.

The page quotes posts and stays out of git; the JSON file, which is small and kept with the code, names them by id alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from causalroute import io, layout
from causalroute.audit import audit
from causalroute.config import Audit, Dataset
from causalroute.report.audit_page import render
from causalroute.stages._cli import run, section_of, stage_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stage."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="a key of `datasets`")
    arguments = parser.parse_args(argv)
    section_of(arguments.config, "dataset", Dataset)
    settings = section_of(arguments.config, "audit", Audit)
    manifest = pl.read_parquet(layout.manifest(arguments.dataset))
    summary = io.read_json(layout.summary(arguments.dataset))
    found = audit(manifest, summary, settings, layout.raw(arguments.dataset))
    io.write_text(layout.audit_page(arguments.dataset), render(found | {"dropped": summary.get("dropped", {})}, arguments.dataset))
    for cue in (*found["shortcuts"], *found["associations"]):
        cue["examples"] = [post["id"] for post in cue["examples"]]
    io.write_json(layout.reports(arguments.dataset) / "audit.json", found)
    return 0


if __name__ == "__main__":
    run(main)
