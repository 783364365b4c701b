"""Stage: features of every token and patch, of the factual pair or of one editor's views, from a frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence

from causalroute import layout
from causalroute.config import Backbone
from causalroute.stages._cli import run, section_of, stage_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes features/{dataset}/{backbone}/tokens/{views}.safetensors."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="key of datasets in params.yaml")
    parser.add_argument("--backbone", required=True, help="key of backbones in params.yaml")
    parser.add_argument("--views", required=True, help="factual, or the key of an editor")
    parser.add_argument("--threads", type=int, default=1, help="forward passes at a time (changes no byte of the result)")
    args = parser.parse_args(argv)
    if args.threads < 1:
        parser.error("--threads must be at least 1")
    settings = section_of(args.config, "backbone", Backbone)

    from causalroute.features.backbone import load_backbone
    from causalroute.features.encoding import Encoding
    from causalroute.features.store import Store
    from causalroute.features.token_views import write_tokens

    backbone = load_backbone(settings, args.backbone)
    job = Encoding(backbone, Store(layout.feature_store(), backbone.key), layout.raw(args.dataset), args.threads, tokens=True)
    write_tokens(args.dataset, args.backbone, args.views, job)
    return 0


if __name__ == "__main__":
    run(main)
