"""Stage: features of every token and patch, of the factual pair or of one editor's views, from a frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence

from causalroute import layout
from causalroute.config import Backbone
from causalroute.stages._cli import encoding_parser, run, section_of


def main(argv: Sequence[str] | None = None) -> int:
    """Writes features/{dataset}/{backbone}/tokens/{views}.safetensors."""
    args = encoding_parser(__doc__).parse_args(argv)
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
