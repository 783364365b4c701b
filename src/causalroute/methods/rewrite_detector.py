"""A cheat, to read other rows by: a bag of words that turns its answer round where a caption reads like a published rewrite.

    p(y | x) = (1 - r(x)) p_b(y | x) + r(x) p_b(the other class | x)

p_b is `bag_of_words`; r is another one, fitted to tell the published rewrites of train posts, whose labels are flipped, from the train posts themselves; its
C is chosen on every tenth post and its rewrites, which the fit does not see. What a test of rewrites gives to this row it gives for knowing the rewriter, so a
method that was trained on the same hand's rewrites has to do better to have shown anything. Two classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl
import torch
from torch import Generator, Tensor

from causalroute import layout
from causalroute.config import section
from causalroute.errors import UserError
from causalroute.methods import bag_of_words
from causalroute.methods.base import Answer, Inputs, Origin, Posts, Shape

EDITOR = None
READS = "rewrites"
HELD_OUT = 10
"""Of so many posts one is for choosing C."""


@section
class Settings(bag_of_words.Settings):
    """Those of the bag of words, for both of them."""


def open_posts(ids: Sequence[str], origin: Origin) -> dict[str, list[str]]:
    """The published rewrites of the posts `ids`, as far as there are any."""
    frame = pl.read_parquet(layout.rewrites(origin.dataset), columns=["id", "text"]).filter(pl.col("id").is_in(list(ids)))
    found: dict[str, list[str]] = {}
    for name, text in frame.iter_rows():
        found.setdefault(name, []).append(text)
    return found


class Method(bag_of_words.Method):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.detector = bag_of_words.Method(settings, shape, generator)

    def prepare(self, posts: Posts, generator: Generator) -> None:
        """Fits both bags of words."""
        if posts.classes != 2:
            raise UserError("an answer can only be turned round between two classes", where="methods.rewrite_detector", fix="leave rewrite_detector out")
        super().prepare(posts, generator)
        rewrites = posts.reader or {}
        texts: tuple[list[str], list[str]] = ([], [])
        labels: tuple[list[int], list[int]] = ([], [])
        for number, row in enumerate(posts.train.tolist()):
            for label, versions in enumerate(([posts.texts[row]], rewrites.get(posts.ids[row], []))):
                texts[number % HELD_OUT == 0].extend(versions)
                labels[number % HELD_OUT == 0].extend([label] * len(versions))
        if not all(0 < sum(part) < len(part) for part in labels):
            fix = "leave rewrite_detector out of `methods`: it is for data sets whose train posts have published rewrites (MMSD with those of DMSD-CL)"
            raise UserError("there are too few published rewrites of train posts to tell them by", where="methods.rewrite_detector", fix=fix)
        self.detector.fit((texts[0], torch.tensor(labels[0])), (texts[1], torch.tensor(labels[1])))

    def answer(self, inputs: Inputs) -> Answer:
        """Probabilities from the texts."""
        p, rewritten = super().answer(inputs).p, self.detector.answer(inputs).p[:, 1:]
        return Answer(p=(1 - rewritten) * p + rewritten * p.flip(-1))

    def extra(self) -> dict[str, str]:
        """Both vocabularies."""
        return super().extra() | {"detector": json.dumps(self.detector.extra())}

    def restore(self, tensors: dict[str, Tensor], extra: dict[str, str]) -> None:
        """Takes weights and vocabularies of both."""
        prefix = "detector."
        super().restore({name: value for name, value in tensors.items() if not name.startswith(prefix)}, extra)
        inner = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        self.detector.restore(inner, json.loads(extra["detector"]))
