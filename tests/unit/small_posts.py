"""Made-up posts of one table with images, and a stand-in for the saved model, for tests of what lies around it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from causalroute.config import Backbone
from causalroute.io import write_json
from causalroute.serving.bundle import FORMAT, Bundle, open_bundle
from causalroute.serving.posts import Explanation, Post, Prediction

WORDS = ["market", "coffee", "river", "train", "bread", "window", "ticket", "holiday", "monday", "bike", "garden", "light", "paper", "street"]
SMALL = ("backbones.small.pretrain.steps=4", "backbones.small.pretrain.images=64", "evaluate.bootstrap=50", "audit.min_count=5")
"""Settings that make a run with the backbone `small` short."""


def write_table(folder: Path, count: int = 150, *, images: bool = True, name: str = "posts.csv") -> Path:
    """A table of two classes: a hashtag goes with the label nine times in ten, the colour of the image likewise."""
    draw = random.Random(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = ["caption,image,mood" if images else "caption,mood"]
    for number in range(count):
        label = number % 2
        agrees = draw.random() < 0.9
        text = " ".join([*draw.sample(WORDS, 5), "lovely" if label else "awful", "#sunny" if agrees == bool(label) else "#rainy"])
        if images:
            picture = Image.new("RGB", (40, 32), (200, 150, 60) if (draw.random() < 0.9) == bool(label) else (60, 90, 200))
            for _ in range(20):
                picture.putpixel((draw.randrange(40), draw.randrange(32)), (draw.randrange(256),) * 3)
            picture.save(folder / "images" / f"p{number}.png")
        lines.append(",".join([text, *([f"images/p{number}.png"] if images else []), "positive" if label else "negative"]))
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


class Predictor:
    """Reads the word for the meaning; its biased half reads the hashtag."""

    classes = ("negative", "positive")

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.config = bundle, bundle.config
        self.seen: list[Post] = []

    @classmethod
    def load(cls, folder: Path | str, *, backbone: str = "") -> Predictor:
        return cls(open_bundle(folder, backbone))

    def predict(self, posts: Sequence[Post], *, explain: bool = False) -> list[Prediction]:
        self.seen += posts
        return [self._one(post, explain) for post in posts]

    def _one(self, post: Post, explain: bool) -> Prediction:
        sure, biased = (0.9 if word in post.text else 0.2 for word in ("lovely", "#sunny"))
        two = [{"negative": 1 - p, "positive": p} for p in (sure, biased)]
        labels = [max(one, key=lambda name: one[name]) for one in two]
        known = bool(self.config.get("reference"))
        why = Explanation({}, {}, (), (), None) if explain else None
        return Prediction(labels[0], two[0], 0.01, labels[1] if known else None, two[1] if known else None, why, ())


def assemble(project: Path, dataset: str, method: str, out: Path, reference: str = "erm") -> None:
    """What is written says what it was asked for; the weights are empty."""
    out.mkdir(parents=True, exist_ok=True)
    backbone = {"name": "small", "settings": dataclasses.asdict(Backbone(kind="dual_encoder", model="nowhere"))}
    told = {"task": "sentiment", "method": method, "reference": reference, "visual": "image", "dataset": dataset, "seeds": 2, "backbone": backbone}
    write_json(out / "config.json", {"causalroute": FORMAT} | told)
    (out / "README.md").write_text("card\n")
    for name in (method, reference):
        (out / f"{name}.safetensors").write_bytes(b"")


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the stand-ins in the place of what makes a saved model and answers from one."""
    monkeypatch.setattr("causalroute.serving.predictor.Predictor", Predictor)
    monkeypatch.setattr("causalroute.serving.assemble.assemble", assemble)
