"""A predictor of a few lines in the place of the real one: hashtags and warm pictures speak for `literal`, kind words for `sarcastic`."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from causalroute.errors import UserError
from causalroute.serving.posts import Explanation, Post, Prediction, Region, Word

CLASSES = ("literal", "sarcastic")
KIND = ("lovely", "wonderful", "great", "fantastic")
SIDE = 8
UNUSABLE, BROKEN = "unusable", "secret words in an exception"
"""Texts that it refuses, and breaks on."""
INTERVAL = {"low": 0.9, "high": 0.97}
CONFIG: dict[str, Any] = {
    "task": "sarcasm",
    "dataset": "planted",
    "method": "causal_moe",
    "reference": "erm",
    "visual": "image",
    "seeds": [0, 1, 2, 3, 4],
    "backbone": {"name": "small_clip"},
    "results": {"causal_moe": {"ood": {"accuracy": {"mean": 0.953} | INTERVAL}}, "erm": {"ood": {"accuracy": {"mean": 0.237} | INTERVAL}}},
    "made_by": {"version": "0.1.0", "code": "abc"},
}


class FakePredictor:
    """Answers by rule; counts its calls.

    Args:
        seconds: a call takes, plus a tenth of it for each post.
        config: changes to CONFIG.
        classes: two or more.
    """

    def __init__(self, seconds: float = 0.0, classes: tuple[str, ...] = CLASSES, **config: Any) -> None:
        self.classes, self.config, self.seconds = classes, CONFIG | config, seconds
        self.calls: list[int] = []
        self.free = threading.Event()
        """a call waits until it is set"""
        self.free.set()
        self.warmed = threading.Event()
        self.cold: BaseException | None = None
        """raised by `warm`"""

    def warm(self) -> None:
        if self.cold:
            raise self.cold
        self.warmed.set()

    def predict(self, posts: Sequence[Post], *, explain: bool = False) -> list[Prediction]:
        self.calls.append(len(posts))
        self.free.wait()
        if self.seconds:
            time.sleep(self.seconds * (1 + len(posts) / 10))
        for post in posts:
            if post.text == UNUSABLE:
                raise UserError("nothing in it", where="post", fix="write something")
            if post.text == BROKEN:
                raise RuntimeError(BROKEN)
        answers = [self._answer(post) for post in posts]
        return answers if explain else [replace(answer, explanation=None) for answer in answers]

    def _answer(self, post: Post) -> Prediction:
        words = tuple(Word(m[0], m.start(), m.end(), m[0].startswith("#")) for m in re.finditer(r"#?\w+|[^\w\s]", post.text))
        tags = sum(word.context for word in words)
        core = 3.0 if any(kind in post.text for kind in KIND) else -3.0
        warm = 0.0 if post.image is None else (1.5 if np.asarray(post.image)[..., 0].mean() > np.asarray(post.image)[..., 2].mean() else -1.5)
        biased = self._named(core / 4 - 1.5 * tags - warm)
        own = self._named(core)
        effects = {"TE": core - 1.5 * tags - warm, "NDE_text": -1.5 * tags, "NDE_image": -warm, "NDE_both": -1.5 * tags - warm, "TIE": core}
        cells = range(SIDE)
        region = Region(SIDE, tuple(tuple(2 <= x < 6 and 1 <= y < 6 for x in cells) for y in cells)) if post.image is not None else None
        gates = {"keep": 0.05, "text": 0.15, "image": 0.1, "both": 0.7}
        why = Explanation({name: self._effect(value) for name, value in effects.items()}, gates, (("keep 1", 0.2), ("text 1", 0.8)), words, region)
        label, biased_label = (max(p, key=p.__getitem__) for p in (own, biased))
        if not self.config["reference"]:
            biased_label = biased = None
        return Prediction(label, own, 0.02, biased_label, biased, why, () if post.image is not None else ("no image: the reference image stands in",))

    def _effect(self, value: float) -> dict[str, float]:
        return {name: (-value, value)[min(i, 1)] / (1 + max(0, i - 1)) for i, name in enumerate(self.classes)}

    def _named(self, score: float) -> dict[str, float]:
        p = np.exp([(-score / 2, score / 2)[i] if i < 2 else -1.0 for i in range(len(self.classes))])
        return dict(zip(self.classes, (p / p.sum()).tolist(), strict=True))
