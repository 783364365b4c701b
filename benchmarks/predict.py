"""What a prediction costs beside the passes of the frozen backbone that it cannot do without: one post at a time, and in bulk; and how long the start takes.

    PYTHONPATH=src python -m benchmarks.predict MODEL TABLE --root FOLDER --posts 100

The passes: texts t and t_s, images v and v_s, and the gradient that finds the core, with the preparation of pixels (`prepared`) and without it (`passes`).
Both sides run in turn, in processor seconds of one process: the ratio is what to read on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from causalroute.audit.table import GUESSES, guess
from causalroute.counterfactual.image.answers import of_head, of_towers
from causalroute.counterfactual.image.maps import squeeze
from causalroute.counterfactual.image.saliency import gradient_times_input
from causalroute.data.formats.table import open_table
from causalroute.data.images import open_image
from causalroute.serving.posts import Post
from causalroute.serving.predictor import Predictor

ROUNDS = 7
"""How often all posts at once are predicted, in turn with their passes; ratios are medians over rounds."""
START = """
import sys, time
began = time.process_time()
from causalroute.serving.predictor import Predictor
Predictor.load(sys.argv[1])
print(time.process_time() - began)
"""


def posts_of(table: Path, root: Path, count: int) -> list[Post]:
    """Posts of the table that have both sides, decoded."""
    names, rows = open_table(table)
    text, image = (guess(names, GUESSES[key], set()) for key in ("text", "image"))
    found = (row for _, row in rows if isinstance(row, dict) and row.get(text) and row.get(image))
    return [Post(str(row[text]), open_image(root, str(row[image]))) for row, _ in zip(found, range(count), strict=False)]


class Passes:
    """The backbone's work on some posts, without anything around it."""

    def __init__(self, predictor: Predictor, posts: list[Post]) -> None:
        encoder, editor = predictor._ready().reads, predictor.editor
        assert editor is not None, "the model has no editor"
        assert editor.image is not None, "the model has no image editor"
        self.backbone, self.images = encoder.backbone, [post.image for post in posts if isinstance(post.image, Image.Image)]
        contexts = [editor.text.sides(post.text) for post in posts]
        self.texts = [*(post.text for post in posts), *(t_s for t_s, _ in contexts)]
        core = [t_c for _, t_c in contexts]
        t, v = encoder.texts([post.text for post in posts])[0], encoder.images(self.images)
        fusion = editor.image.fusion
        self.answers = of_towers(self.backbone, core) if fusion is None else of_head(self.backbone, fusion.beside(t, v))
        self.pixels = self._pixels()

    def _pixels(self) -> tuple[torch.Tensor, torch.Tensor]:
        squares = torch.stack([self.backbone.preprocess(squeeze(image)) for image in self.images])
        return torch.stack([self.backbone.preprocess(image) for image in self.images]), squares

    def prepared(self) -> None:
        """Pixels made anew (those of v_s as well), then the passes."""
        self._pixels()
        torch.stack([self.backbone.preprocess(image) for image in self.images])
        self.passes()

    def passes(self) -> None:
        """t and t_s, v and v_s, and the gradient."""
        encoded = self.backbone.tokenize_many(self.texts)
        with torch.inference_mode():
            for bucket in sorted({one.bucket for one in encoded}):
                chosen = [one for one in encoded if one.bucket == bucket]
                for first in range(0, len(chosen), self.backbone.batch_size):
                    self.backbone.encode_texts(*self.backbone.collate(chosen[first : first + self.backbone.batch_size]))
        for rows in torch.arange(len(self.images)).split(self.backbone.image_batch):
            with torch.inference_mode():
                for _ in ("v", "v_s"):
                    self.backbone.encode_images(self.pixels[0][rows])
            gradient_times_input(self.answers.encode, self.pixels[1][rows], self.answers.directions[rows])


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def compare(predictor: Predictor, posts: list[Post]) -> dict[str, Any]:
    """Medians over posts of the time of one, and the time of all of them at once, over that of the passes."""
    single: dict[str, list[float]] = {"predict": [], "explain": [], "prepared": [], "passes": []}
    for post in posts:
        passes = Passes(predictor, [post])
        jobs = {"predict": partial(predictor.predict, [post]), "explain": partial(predictor.predict, [post], explain=True)}
        for name, work in (jobs | {"prepared": passes.prepared, "passes": passes.passes}).items():
            single[name].append(seconds(work))
    p50 = {name: statistics.median(times) for name, times in single.items()}
    whole = Passes(predictor, posts)
    bulk = {"predict": lambda: predictor.predict(posts), "prepared": whole.prepared, "passes": whole.passes}
    rounds = [{name: seconds(work) for name, work in bulk.items()} for _ in range(ROUNDS)]
    together = {name: statistics.median(times[name] for times in rounds) for name in bulk}
    return {
        "posts": len(posts),
        "single_p50_ms": {name: round(1000 * value, 1) for name, value in p50.items()},
        "single_ratio": {name: round(p50["predict"] / p50[name], 3) for name in ("prepared", "passes")},
        "bulk_posts_per_second": {name: round(len(posts) / value, 1) for name, value in together.items()},
        "bulk_ratio": {name: round(statistics.median(times["predict"] / times[name] for times in rounds), 3) for name in ("prepared", "passes")},
    }


def main() -> None:
    """Prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a saved model whose editor looks at images (saliency)")
    parser.add_argument("table", type=Path, help="posts with a text and an image each")
    parser.add_argument("--root", type=Path, help="folder that image paths are relative to (default: the table's)")
    parser.add_argument("--posts", type=int, default=50, help="how many of them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    predictor = Predictor.load(arguments.model)
    posts = posts_of(arguments.table, arguments.root or arguments.table.parent, arguments.posts)
    predictor.predict(posts[:1])
    found = compare(predictor, posts)
    starts = [float(subprocess.run([sys.executable, "-c", START, arguments.model], check=True, capture_output=True, text=True).stdout) for _ in range(3)]
    print(json.dumps(found | {"start_seconds": round(min(starts), 2)}, indent=1))


if __name__ == "__main__":
    main()
