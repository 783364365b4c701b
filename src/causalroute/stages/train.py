"""Trains the seeds of one method on one data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from causalroute import io, layout, methods
from causalroute.config import Dataset, Train
from causalroute.errors import UserError
from causalroute.provenance import code_hash
from causalroute.stages._cli import run, section_of, seed_range, stage_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stage."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--seeds", required=True, type=seed_range, help="first-last")
    arguments = parser.parse_args(argv)
    dataset, train = section_of(arguments.config, "dataset", Dataset), section_of(arguments.config, "train", Train)
    settings = arguments.config.get("method", {})
    methods.settings_of(arguments.method, settings)
    _train(arguments.dataset, dataset, train, arguments.method, settings, arguments.seeds)
    return 0


def _train(name: str, dataset: Dataset, train: Train, method: str, settings: dict[str, Any], seeds: range) -> None:
    import torch

    from causalroute.training import job
    from causalroute.training.data import TRAIN_VIEWS, Files, load_posts

    torch.set_num_threads(1)
    module = methods.load(method)
    roles = dict(module.Method.split_roles)
    editor = methods.editor_of(method, dataset.editor)
    if editor and {"oracle_train", "oracle_valid"} & set(roles.values()):
        raise UserError("a method on the oracle splits cannot use counterfactuals: there are none of them", where=f"methods.{method}")
    files = Files.of(name, dataset.backbone, editor)
    posts, standard = load_posts(files, list(roles.values()), dataset.classes, roles=roles, views=TRAIN_VIEWS if editor else ())
    first, last = seeds[0], seeds[-1]
    key = _key(files.existing(), {"method": method, "settings": settings, "train": vars(train), "classes": dataset.classes})
    out, events = layout.run(name, method, first, last), layout.events(name, method, first, last)
    job.run(job.Job(method, settings, train, seeds, out, events, key), posts, standard)


def _key(files: Sequence[Path], settings: dict[str, Any]) -> str:
    """Digest of everything a checkpoint depends on: inputs, settings and the package's own code."""
    code = code_hash("causalroute.training.job", f"causalroute.methods.{settings['method']}")
    parts = [io.canonical_json(settings), code, *(io.sha256_file(path) for path in files)]
    return io.sha256_bytes(*(part.encode() for part in parts))


if __name__ == "__main__":
    run(main)
