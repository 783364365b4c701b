"""Made-up posts of one table with images, and stand-ins for the saved model that is made and read elsewhere."""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

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


@dataclasses.dataclass(frozen=True)
class Post:
    text: str = ""
    image: Any = None
    attributes: str | None = None


@dataclasses.dataclass(frozen=True)
class Prediction:
    label: str
    probabilities: dict[str, float]
    spread: float
    biased_label: str | None
    biased: dict[str, float] | None
    explanation: Any = None
    warnings: tuple[str, ...] = ()


class Predictor:
    """Reads the word for the meaning; its biased half reads the hashtag."""

    classes = ("negative", "positive")

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.seen: list[Post] = []

    @classmethod
    def load(cls, folder: Path | str, *, backbone: str = "") -> Predictor:
        return cls(json.loads((Path(folder) / "config.json").read_text()))

    def predict(self, posts: Sequence[Post], *, explain: bool = False) -> list[Prediction]:
        self.seen += posts
        return [self._one(post, explain) for post in posts]

    def _one(self, post: Post, explain: bool) -> Prediction:
        sure, biased = (0.9 if word in post.text else 0.2 for word in ("lovely", "#sunny"))
        two = [{"negative": 1 - p, "positive": p} for p in (sure, biased)]
        labels = [max(one, key=lambda name: one[name]) for one in two]
        known = bool(self.config.get("reference"))
        return Prediction(labels[0], two[0], 0.01, labels[1] if known else None, two[1] if known else None, "why" if explain else None)


def assemble(project: Path, dataset: str, method: str, out: Path, reference: str = "erm") -> None:
    """What is written says what it was asked for."""
    out.mkdir(parents=True, exist_ok=True)
    config = {"task": "sentiment", "method": method, "reference": reference, "visual": "image", "dataset": dataset, "seeds": 2, "backbone": "small"}
    (out / "config.json").write_text(json.dumps(config))
    (out / "README.md").write_text("card\n")


def stand_in(monkeypatch: pytest.MonkeyPatch, *, always: bool = True) -> None:
    """Puts the stand-ins in the place of the real modules; unless `always`, only where there are none."""
    for name, contents in {"posts": [Post], "predictor": [Predictor], "assemble": [assemble]}.items():
        full = f"causalroute.serving.{name}"
        if always or find_spec(full) is None:
            module = ModuleType(full)
            for content in contents:
                setattr(module, content.__name__, content)
            monkeypatch.setitem(sys.modules, full, module)
