"""Judges the swaps of one editor: counterfactuals/{dataset}/{editor}.gate.json (which sides may be trained on, and why not)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import polars as pl

from causalroute import io, layout
from causalroute.config import Dataset, Gate
from causalroute.counterfactual.gate import failures, gate
from causalroute.counterfactual.judged import judged_posts
from causalroute.errors import UserError
from causalroute.stages._cli import run, section_of, stage_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stage."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="a key of `datasets`")
    parser.add_argument("--editor", required=True, help="a key of `editors`")
    parser.add_argument("--backbone", required=True, help="a key of `backbones`, whose features the probes read")
    arguments = parser.parse_args(argv)
    section_of(arguments.config, "dataset", Dataset)
    settings = section_of(arguments.config, "gate", Gate)
    _one_thread()
    posts = judged_posts(*read(arguments.dataset, arguments.editor, arguments.backbone), settings)
    found = gate(posts, settings)
    for sentence in failures(found):
        print(f"{arguments.editor} fails the gate; {sentence}", file=sys.stderr)
    io.write_json(layout.gate(arguments.dataset, arguments.editor), found)
    return 0


def _one_thread() -> None:
    """How sums are split over threads changes their last digit."""
    import torch

    torch.set_num_threads(1)


def read(dataset: str, editor: str, backbone: str) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any], dict[str, Any]]:
    """Manifest, counterfactuals, factual features and features of the editor's views.

    Raises:
        UserError: features of another manifest.
    """
    manifest, table = pl.read_parquet(layout.manifest(dataset)), pl.read_parquet(layout.counterfactuals(dataset, editor))
    digest = io.ids_digest(manifest["id"])

    def features(views: str) -> dict[str, Any]:
        path = layout.features(dataset, backbone, views)
        tensors, metadata = io.read_tensors(path)
        if metadata.get("ids_sha256") != digest:
            raise UserError("the features belong to another manifest", where=str(path), fix="run the features stage again")
        return dict(tensors)

    return manifest, table, features("factual"), features(editor)


if __name__ == "__main__":
    run(main)
