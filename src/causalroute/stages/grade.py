"""Writes reports/{dataset}/counterfactuals.json: grades of every editor of the data set, with what the gate found where its views were judged."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from causalroute import io, layout
from causalroute.config import Dataset
from causalroute.counterfactual.grade import grade
from causalroute.errors import UserError
from causalroute.stages._cli import run, section_of, stage_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stage."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="a key of `datasets`")
    parser.add_argument("--editors", nargs="*", default=[], help="keys of `editors` (none: every file in counterfactuals/{dataset})")
    parser.add_argument("--gated", nargs="*", help="those of them that were judged at the gate (not given: all with a verdict)")
    arguments = parser.parse_args(argv)
    section_of(arguments.config, "dataset", Dataset)
    folder = layout.counterfactuals(arguments.dataset, "any").parent
    names = arguments.editors or sorted(path.stem for path in folder.glob("*.parquet"))
    if not names:
        raise UserError("there are no counterfactuals to grade", where=str(folder), fix="run the counterfactuals stage first")
    manifest, truth = pl.read_parquet(layout.manifest(arguments.dataset)), pl.read_parquet(layout.truth(arguments.dataset))
    grades = {name: grade(pl.read_parquet(layout.counterfactuals(arguments.dataset, name)), manifest, truth) for name in names}
    gated = arguments.gated if arguments.gated is not None else [name for name in names if layout.gate(arguments.dataset, name).is_file()]
    for name in gated:
        grades[name]["gate"] = io.read_json(layout.gate(arguments.dataset, name))
    io.write_json(layout.reports(arguments.dataset) / "counterfactuals.json", {"known_truth": bool(truth.height), "editors": grades})
    return 0


if __name__ == "__main__":
    run(main)
