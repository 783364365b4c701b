"""Writes counterfactuals/{dataset}/gallery.html: posts beside their counterfactuals, for every editor whose views are encoded."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from causalroute import io, layout
from causalroute.config import Dataset, Gate
from causalroute.counterfactual.judged import judged_posts
from causalroute.counterfactual.showcase import cards
from causalroute.report.gallery import render
from causalroute.stages._cli import run, section_of, stage_parser
from causalroute.stages.gate import read

CARDS = 64
"""Posts on the page: a page of photos stays below 3 MB."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stage."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="a key of `datasets`")
    parser.add_argument("--editors", nargs="+", required=True, help="keys of `editors`")
    parser.add_argument("--backbone", required=True, help="a key of `backbones`, whose features the probe reads")
    arguments = parser.parse_args(argv)
    dataset, settings = section_of(arguments.config, "dataset", Dataset), section_of(arguments.config, "gate", Gate)
    torch.set_num_threads(1)
    where = {"classes": dataset.classes, "root": layout.raw(arguments.dataset), "reference": layout.reference_image(arguments.dataset)}
    found, gates = [], {}
    for editor in arguments.editors:
        manifest, table, factual, views = read(arguments.dataset, editor, arguments.backbone)
        posts = judged_posts(manifest, table, factual, views, settings)
        found += cards(editor, posts, manifest, table, settings, count=CARDS // len(arguments.editors), **where)
        gates[editor] = io.read_json(layout.gate(arguments.dataset, editor))
    io.write_text(layout.gallery(arguments.dataset), render(arguments.dataset, found, gates, posts.visual))
    return 0


if __name__ == "__main__":
    run(main)
