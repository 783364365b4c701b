"""Chooses the settings of one method on one data set by its validation posts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from causalroute import io, layout, methods
from causalroute.config import Dataset, Search, Train
from causalroute.stages._cli import run, section_of, stage_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stage."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--method", required=True)
    arguments = parser.parse_args(argv)
    config = arguments.config
    dataset, train, budget = section_of(config, "dataset", Dataset), section_of(config, "train", Train), section_of(config, "search", Search)
    train = replace(train, epochs=budget.epochs or train.epochs)
    seeds = range(budget.first_seed, budget.first_seed + budget.seeds)
    _search(arguments.dataset, dataset, train, arguments.method, config.get("method", {}), seeds)
    return 0


def _search(name: str, dataset: Dataset, train: Train, method: str, settings: dict[str, Any], seeds: range) -> None:
    import torch

    from causalroute.training import job, search
    from causalroute.training.data import training_posts

    torch.set_num_threads(1)
    tried = methods.candidates(method, settings)
    files, posts, standard = training_posts(name, dataset, method)
    judged, read = search.judged_posts(name, dataset, standard)
    key = job.digest([*files.existing(), *read], method, settings=settings, train=vars(train), classes=dataset.classes)
    out = layout.search(name, method)
    work = job.Job(method, settings, train, seeds, out.with_name(".search"), layout.search_events(name, method), key)
    io.write_json(out, search.record(work, search.trials(work, tried, posts, judged)))
    search.forget(work)


if __name__ == "__main__":
    run(main)
