"""Writes counterfactuals/{dataset}/{editor}.parquet, or with `--editor reference` the reference image of the visual side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute import io, layout
from causalroute.config import Backbone, Dataset, Editor
from causalroute.counterfactual.build import build, reference_of
from causalroute.counterfactual.sources import Sources
from causalroute.stages._cli import run, section_of, stage_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stage."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="a key of `datasets`")
    parser.add_argument("--editor", required=True, help="a key of `editors`, or `reference`")
    parser.add_argument("--backbone", default="", help="a key of `backbones`; not needed for `reference`")
    parser.add_argument("--threads", type=int, default=1, help="image batches at a time (changes no byte of the result)")
    arguments = parser.parse_args(argv)
    manifest = pl.read_parquet(layout.manifest(arguments.dataset))
    if arguments.editor == "reference":
        section_of(arguments.config, "dataset", Dataset)
        image = reference_of(manifest, layout.raw(arguments.dataset))
        with io.atomic(layout.reference_image(arguments.dataset)) as temporary:
            image.save(temporary, format="PNG")
        return 0
    editor = section_of(arguments.config, "editor", Editor)
    io.write_parquet(layout.counterfactuals(arguments.dataset, arguments.editor), build(manifest, editor, _sources(arguments, editor, manifest)))
    return 0


def _sources(arguments: argparse.Namespace, editor: Editor, manifest: pl.DataFrame) -> Sources:
    """The truth is opened for the truth editors alone."""
    import torch

    torch.set_num_threads(1)
    truth = pl.read_parquet(layout.truth(arguments.dataset)) if "truth" in (editor.text, editor.image) else None
    backbone = section_of(arguments.config, "backbone", Backbone)

    def features(ids: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        position = {name: row for row, name in enumerate(manifest["id"])}
        rows = [position[name] for name in ids]
        tensors, _ = io.read_tensors(layout.features(arguments.dataset, arguments.backbone, "factual"))
        return tensors["t"][rows].float().numpy(), tensors["v"][rows].float().numpy()

    published = layout.rewrites(arguments.dataset)
    rewrites = pl.read_parquet(published) if published.is_file() else None
    found = (layout.raw(arguments.dataset), truth, rewrites, (backbone, arguments.backbone), features, layout.reply_cache(), arguments.threads)
    return Sources(*found)


if __name__ == "__main__":
    run(main)
