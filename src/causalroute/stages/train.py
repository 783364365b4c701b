"""Trains the seeds of one method on one data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from causalroute import io, layout, methods
from causalroute.config import Backbone, Dataset, Train
from causalroute.errors import UserError
from causalroute.stages._cli import run, section_of, seed_range, stage_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stage."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--seeds", required=True, type=seed_range, help="first-last")
    arguments = parser.parse_args(argv)
    config = arguments.config
    dataset, train = section_of(config, "dataset", Dataset), section_of(config, "train", Train)
    settings = config.get("method", {})
    methods.settings_of(arguments.method, settings)
    backbone = section_of(config, "backbone", Backbone) if methods.reads(arguments.method) else None
    searched = arguments.method in config.get("searched", ())
    _train(arguments.dataset, dataset, backbone, train, arguments.method, settings, arguments.seeds, searched)
    return 0


def _train(name: str, dataset: Dataset, backbone: Backbone | None, train: Train, method: str, settings: dict[str, Any], seeds: range, searched: bool) -> None:
    import torch

    from causalroute.methods.base import Origin
    from causalroute.training import job
    from causalroute.training.data import training_posts

    torch.set_num_threads(1)
    if searched:
        settings = settings | _chosen(layout.search(name, method))
    files, posts, standard = training_posts(name, dataset, method)
    first, last = seeds[0], seeds[-1]
    read, asked = files.existing(), {}
    if backbone is not None:
        origin = Origin(name, methods.editor_of(method, dataset.editor) or "", "", dataset.backbone, backbone)
        posts = methods.with_reader(method, posts, origin)
        read, asked = [*read, *methods.further_files(method, origin)], {"backbone": asdict(backbone)}
    key = job.digest(read, method, settings=settings, train=vars(train), classes=dataset.classes, **asked)
    out, events = layout.run(name, method, first, last), layout.events(name, method, first, last)
    job.run(job.Job(method, settings, train, seeds, out, events, key), posts, standard)


def _chosen(path: Path) -> dict[str, Any]:
    """The values that the search chose."""
    if not path.is_file():
        raise UserError("the search of this method's settings is missing", where=str(path), fix="run the workflow again: its search rule writes this file")
    chosen: dict[str, Any] = io.read_json(path)["chosen"]
    return chosen


if __name__ == "__main__":
    run(main)
