"""Writes the predictions of one training job; the only stage that opens the test labels."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from causalroute import io, layout, methods
from causalroute.config import Backbone, Dataset
from causalroute.stages._cli import run, section_of, seed_range, stage_parser

SPLITS = ("valid", "id", "ood", "neutral", "clean")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stage."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--seeds", required=True, type=seed_range, help="first-last")
    arguments = parser.parse_args(argv)
    backbone = section_of(arguments.config, "backbone", Backbone) if methods.reads(arguments.method) else None
    _evaluate(arguments.dataset, section_of(arguments.config, "dataset", Dataset), backbone, arguments.method, arguments.seeds)
    return 0


def _evaluate(name: str, dataset: Dataset, backbone: Backbone | None, method: str, seeds: range) -> None:
    import torch

    from causalroute.evaluation.predict import Weights, predict
    from causalroute.methods.base import Origin
    from causalroute.training.data import ALL_VIEWS, Files, load_posts

    torch.set_num_threads(1)
    out = layout.run(name, method, seeds[0], seeds[-1])
    weights = Weights(out / "weights.safetensors")
    labels = _labels(name)
    editor = methods.editor_of(method, dataset.editor) or dataset.editor
    files = Files.of(name, dataset.backbone, editor, dataset.held_out)
    splits = [split for split in SPLITS if (labels["split"] == split).any()]
    roles = {"train": "train", "valid": "valid"}
    posts, _ = load_posts(files, splits, dataset.classes, roles=roles, views=ALL_VIEWS, standard=weights.standard)
    if backbone is not None:
        posts = methods.with_reader(method, posts, Origin(name, editor, dataset.held_out, dataset.backbone, backbone))
    io.write_parquet(out / "predictions.parquet", predict(weights, posts, labels))


def _labels(name: str) -> pl.DataFrame:
    """Labels and groups of all evaluated items: validation from the manifest, test splits from their own file."""
    manifest = pl.read_parquet(layout.manifest(name)).filter(pl.col("split") == "valid")
    groups = [column for column in manifest.columns if column.startswith("group:")]
    known = manifest.select("id", "split", "label", *groups)
    return pl.concat([known, pl.read_parquet(layout.test_labels(name))], how="diagonal_relaxed")


if __name__ == "__main__":
    run(main)
