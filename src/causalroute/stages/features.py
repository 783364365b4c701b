"""Stage: features of the factual pair, or of one editor's views, from a frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence

from causalroute import layout
from causalroute.config import Backbone, Dataset
from causalroute.stages._cli import encoding_parser, run, section_of


def main(argv: Sequence[str] | None = None) -> int:
    """Writes features/{dataset}/{backbone}/{views}.safetensors."""
    args = encoding_parser(__doc__).parse_args(argv)
    settings = section_of(args.config, "backbone", Backbone)

    from causalroute.features.backbone import load_backbone
    from causalroute.features.build import show_examples, write_edited, write_factual
    from causalroute.features.encoding import Encoding
    from causalroute.features.store import Store

    backbone = load_backbone(settings, args.backbone)
    if settings.mllm is not None and settings.mllm.shots:
        show_examples(args.dataset, section_of(args.config, "dataset", Dataset).classes, backbone)
    store = Store(layout.feature_store(), backbone.key)
    job = Encoding(backbone, store, layout.raw(args.dataset), args.threads)
    if args.views == "factual":
        write_factual(args.dataset, args.backbone, job)
    else:
        write_edited(args.dataset, args.backbone, args.views, job)
    return 0


if __name__ == "__main__":
    run(main)
