"""Trains one backbone of `backbones` that asks for it: models/backbones/{backbone}."""

from __future__ import annotations

from collections.abc import Sequence

from causalroute import layout
from causalroute.config import Backbone
from causalroute.errors import UserError
from causalroute.stages._cli import run, section_of, stage_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Trains `--backbone`."""
    parser = stage_parser(__doc__)
    parser.add_argument("--backbone", required=True)
    arguments = parser.parse_args(argv)
    settings = section_of(arguments.config, "backbone", Backbone).pretrain
    if settings is None:
        raise UserError(
            f"the backbone {arguments.backbone!r} is not trained by the pipeline", where="params.yaml: backbones", fix="give it a 'pretrain' section"
        )

    from causalroute.features.pretrain import pretrain

    pretrain(settings, layout.backbone(arguments.backbone))
    return 0


if __name__ == "__main__":
    run(main)
