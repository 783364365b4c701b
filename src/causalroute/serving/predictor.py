"""A saved model that answers: posts in, probabilities and explanations out, without the data it was trained on.

A post goes the way it went in training: its text is marked by the fitted editor, its image is cut into core and context, the frozen backbone reads the
views, the method of every seed answers, and the answers are averaged after temperature scaling. Letters: M posts, C classes, S seeds, E experts.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from causalroute.counterfactual.fitted import Fitted, restored
from causalroute.data.images import open_image
from causalroute.data.records import clean
from causalroute.errors import UserError
from causalroute.evaluation.calibration import soften
from causalroute.evaluation.predict import Weights
from causalroute.methods.base import Answer, Inputs, Method
from causalroute.serving.bundle import BACKBONE, LOOKER, REFERENCE, Bundle, open_bundle
from causalroute.serving.chat_encoder import ChatEncoder
from causalroute.serving.encoder import Encoder
from causalroute.serving.explain import explanation
from causalroute.serving.posts import Post, Prediction
from causalroute.serving.views import Encoders, Views, read

ROUND = 64
"""Posts whose images are in memory at a time."""


@dataclass(frozen=True)
class Judge:
    """One method with all its seeds."""

    methods: list[Method]
    temperatures: list[float]
    weights: Weights

    @classmethod
    def of(cls, bundle: Bundle, name: str) -> Judge:
        """The method `name` of a saved model."""
        weights = bundle.weights(name)
        return cls([weights.restore(seed) for seed in weights.seeds], bundle.config["temperatures"][name], weights)

    @property
    def contexts(self) -> bool:
        """Whether answers need the context views."""
        return any(method.contexts for method in self.methods)

    @torch.no_grad()
    def answer(self, inputs: Inputs) -> tuple[np.ndarray[Any, Any], list[Answer]]:
        """Probabilities (S, M, C) after temperature, and the answers of the seeds."""
        found = [method.answer(inputs) for method in self.methods]
        p = np.stack([answer.p.double().numpy() for answer in found])
        return soften(p, np.asarray(self.temperatures)), found

    def inputs(self, views: Views) -> Inputs:
        """The views, standardised as in training."""
        standard = self.weights.standard
        found = {name: standard.apply(name, value.clone()) for name, value in {"t": views.t, "v": views.v, **views.more}.items()}
        return Inputs(found["t"], found["v"], views.texts, found.get("t_s"), found.get("v_s"), k=found.get("k"))


class Predictor:
    """See the module. `load` makes one.

    Attributes:
        classes: class names, in the order of every distribution.
        config: config.json of the saved model.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.config = bundle, bundle.config
        self.classes: tuple[str, ...] = tuple(bundle.config["classes"])
        self.judge = Judge.of(bundle, bundle.config["method"])
        self.reference = Judge.of(bundle, bundle.config["reference"]) if bundle.config["reference"] else None
        saved = bundle.editor()
        self.editor: Fitted | None = None if saved is None else restored(*saved)
        self._encoders: Encoders | None = None
        self._blank: tuple[Any, Tensor] | None = None
        self._lock = threading.Lock()

    @classmethod
    def load(cls, folder: Path | str, *, backbone: str = "") -> Predictor:
        """Reads a saved model; the backbone is loaded at `warm` or at the first prediction.

        Args:
            folder: of the saved model.
            backbone: another folder for the frozen encoder (`bundle.open_bundle`).

        Raises:
            UserError: the folder is no saved model, or not whole.
        """
        return cls(open_bundle(folder, backbone))

    def warm(self) -> None:
        """Loads the backbone.

        Raises:
            UserError: it cannot be had, or is not the one of the training.
        """
        with self._lock:
            encoders = self._ready()
            if self.judge.contexts:
                encoders.looks  # noqa: B018 - loads it

    def _ready(self) -> Encoders:
        if self._encoders is None:
            reads = (ChatEncoder if self.bundle.backbone.kind == "mllm" else Encoder)(self.bundle.backbone, self.config[BACKBONE])
            looker = None if self.bundle.looker is None else functools.partial(Encoder, self.bundle.looker, self.config[LOOKER])
            if self.config["visual"] == "image":
                image = open_image(self.bundle.folder, REFERENCE)
                self._blank = (image, reads.images([image])[0])
            self._encoders = Encoders(reads, looker)
        return self._encoders

    def predict(self, posts: Sequence[Post], *, explain: bool = False) -> list[Prediction]:
        """Answers to M posts, in their order. May be called from several threads; they take turns.

        Args:
            posts: M posts.
            explain: effects, gates, experts, words and regions as well.

        Raises:
            UserError: a post has nothing that the model reads, or its image cannot be used.
        """
        with self._lock:
            found: list[Prediction] = []
            for first in range(0, len(posts), ROUND):
                found += self._answers(posts[first : first + ROUND], explain, first)
            return found

    def _answers(self, posts: Sequence[Post], explain: bool, first: int) -> list[Prediction]:
        checked = [self._checked(post, first + row) for row, post in enumerate(posts)]
        contexts = self.judge.contexts or (self.reference is not None and self.reference.contexts)
        views = read(checked, self._ready(), self.editor, self._blank, contexts=contexts, explain=explain)
        p, answers = self.judge.answer(self.judge.inputs(views))
        biased = None if self.reference is None else self.reference.answer(self.reference.inputs(views))[0].mean(0)
        mean = p.mean(0)  # (M, C)
        best = mean.argmax(-1)
        made = []
        for row in range(len(posts)):
            spread = float(p[:, row, best[row]].std(ddof=1)) if len(p) > 1 else 0.0
            told = views.warnings[row] + (("the training seeds do not agree on this post",) if len(set(p[:, row].argmax(-1).tolist())) > 1 else ())
            why = explanation(self.judge.methods[0], answers, views, row, self.classes) if explain else None
            made.append(
                Prediction(
                    self.classes[best[row]], self._named(mean[row]), spread,
                    None if biased is None else self.classes[int(biased[row].argmax())], None if biased is None else self._named(biased[row]), why, told,
                )
            )  # fmt: skip
        return made

    def _named(self, p: np.ndarray[Any, Any]) -> dict[str, float]:
        return {name: float(value) for name, value in zip(self.classes, p, strict=True)}

    def reads(self, post: Post) -> bool:
        """Whether the post has anything that this model reads."""
        shown = {"image": post.image is not None, "attributes": bool((post.attributes or "").strip()), "none": False}[self.config["visual"]]
        return bool(post.text.strip()) or shown

    def _checked(self, post: Post, number: int) -> Post:
        """The post with clean text."""
        if not self.reads(post):
            sides = {"image": "a text or an image", "attributes": "a text or attribute words", "none": "a text"}[self.config["visual"]]
            raise UserError(f"post {number + 1} has nothing that this model reads", where=f"post {number + 1}", fix=f"give it {sides}")
        return Post(clean(post.text), post.image, clean(post.attributes or ""))
