"""TF-IDF of one- and two-grams and logistic regression, C chosen on validation: what the words alone give away.

p(y | x) = softmax(W tfidf(x) + b),     W, b minimise  sum CE + |W|^2 / (2 C) (two classes: / C)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from causalroute.config import section
from causalroute.methods import base
from causalroute.methods.base import Answer, Inputs, Posts, Shape
from causalroute.methods.logistic import per_class

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

EDITOR = None
TERM = r"\w+|[^\w\s]+"
"""Marks count as words: a `#` alone tells more about some corpora than any word."""


@section
class Settings:
    """Settings of the bag of words."""

    c: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0)
    """candidates for the inverse strength of the penalty; the one with the best validation accuracy is kept, the smaller on a tie"""
    min_count: int = 2
    """train posts that a term must occur in"""


class Method(base.Method):
    """See the module."""

    gradient = False
    factual_only = True
    weight: Tensor
    bias: Tensor
    idf: Tensor

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.words: list[str] = []
        self._hold({"weight": torch.zeros(shape.classes, 0), "bias": torch.zeros(shape.classes), "idf": torch.zeros(0)})

    def _hold(self, tensors: dict[str, Tensor]) -> None:
        for name, value in tensors.items():
            self.register_buffer(name, value.clone())

    def prepare(self, posts: Posts, generator: Generator) -> None:
        """Fits the vocabulary and one regression per C."""
        train, valid = (([posts.texts[row] for row in rows.tolist()], posts.labels[rows]) for rows in (posts.train, posts.valid))
        self.fit(train, valid)

    def fit(self, train: tuple[Sequence[str], Tensor], valid: tuple[Sequence[str], Tensor]) -> None:
        """Fits texts and labels (N,) of `train`; C is chosen on `valid`."""
        from sklearn.linear_model import LogisticRegression

        vectorizer = self._vectorizer()
        x, x_valid = vectorizer.fit_transform(train[0]), vectorizer.transform(valid[0])
        y, y_valid = train[1].numpy(), valid[1].numpy()
        fits = [LogisticRegression(C=c, max_iter=1000).fit(x, y) for c in sorted(self.settings.c)]
        best: Any = max(fits, key=lambda fit: fit.score(x_valid, y_valid))
        self.words = vectorizer.get_feature_names_out().tolist()
        weight, bias = per_class(best, self.shape.classes)
        self._hold({"weight": weight, "bias": bias, "idf": torch.from_numpy(vectorizer.idf_)})

    def _vectorizer(self) -> TfidfVectorizer:
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(ngram_range=(1, 2), min_df=self.settings.min_count, sublinear_tf=True, token_pattern=TERM)

    def answer(self, inputs: Inputs) -> Answer:
        """Probabilities from the texts."""
        import numpy as np

        vectorizer = self._vectorizer().set_params(vocabulary={word: column for column, word in enumerate(self.words)})
        vectorizer.idf_ = self.idf.numpy()
        x = vectorizer.transform(inputs.texts)
        scores = torch.from_numpy(np.asarray(x @ self.weight.double().numpy().T)) + self.bias
        return Answer(p=scores.softmax(-1).float())

    def extra(self) -> dict[str, str]:
        """The vocabulary."""
        return {"words": json.dumps(self.words, ensure_ascii=False)}

    def restore(self, tensors: dict[str, Tensor], extra: dict[str, str]) -> None:
        """Takes weights and vocabulary."""
        self.words = json.loads(extra["words"])
        self._hold(tensors)
