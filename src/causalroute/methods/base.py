"""What a method is: a module with a loss for training and an answer for prediction, both on cached features.

Letters: N items, B batch, C classes, K swaps per item, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from causalroute.model.losses import cross_entropy


@dataclass(frozen=True)
class Posts:
    """Items in memory: standardised features and what is known about each item."""

    ids: list[str]
    splits: list[str]
    texts: list[str]
    labels: Tensor
    """(N,) int64; -1 where unknown"""
    classes: int
    views: Mapping[str, Tensor]
    """t, v (N, D) float32; with an editor also t_s, t_c, v_s, v_c (N, D) and t_swap, v_swap (N, K, D);
    with a held-out editor t_held_swap, v_held_swap (N, K, D), which only evaluation asks for"""
    text_ok: Tensor
    """(N,) bool: the text swap can be used"""
    image_ok: Tensor
    """(N,) bool: the visual swap can be used"""
    roles: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "valid": "valid"})
    """which split is trained on and which one selects the epoch"""
    sources: list[str] | None = None
    """(N,) true source of each planted post, for labelled oracles alone"""

    def sources_of(self, rows: Tensor) -> list[str] | None:
        """True sources of some of the posts."""
        return None if self.sources is None else [self.sources[row] for row in rows.tolist()]

    def rows(self, split: str) -> Tensor:
        """Row numbers of a split."""
        return torch.tensor([row for row, name in enumerate(self.splits) if name == split], dtype=torch.int64)

    @property
    def train(self) -> Tensor:
        """Row numbers of the items to learn from."""
        return self.rows(self.roles["train"])

    @property
    def valid(self) -> Tensor:
        """Row numbers of the items that select the epoch."""
        return self.rows(self.roles["valid"])

    def inputs(self, rows: Tensor, text: str = "t", image: str = "v", swap: int = 0) -> Inputs:
        """The items `rows` seen through one text and one visual view; `swap` picks one of the K swaps."""

        def view(name: str) -> Tensor:
            value = self.views[name][rows]
            return value[:, swap] if name.endswith("_swap") else value

        context = {name: self.views[name][rows] for name in ("t_s", "v_s") if name in self.views}
        return Inputs(t=view(text), v=view(image), texts=[self.texts[row] for row in rows.tolist()], sources=self.sources_of(rows), **context)


@dataclass(frozen=True)
class Inputs:
    """What a method may look at when it answers."""

    t: Tensor
    v: Tensor
    texts: list[str]
    t_s: Tensor | None = None
    """context only of the post itself, also where `t` is a swap"""
    v_s: Tensor | None = None
    sources: list[str] | None = None
    """true source of each planted post, for labelled oracles alone"""


@dataclass(frozen=True)
class Answer:
    """What a method says; effects are log-odds against the class prior (see model/effects.py)."""

    p: Tensor
    """(B, C) probabilities"""
    te: Tensor | None = None
    nde_t: Tensor | None = None
    nde_v: Tensor | None = None
    nde_tv: Tensor | None = None
    gates: Tensor | None = None
    """(B, 4): keep, text, image, both"""
    experts: Tensor | None = None
    """(B, E)"""


@dataclass(frozen=True)
class Check:
    """One part of the selection rule: inputs of validation items and each item's weight."""

    name: str
    inputs: Inputs
    weights: Tensor


@dataclass(frozen=True)
class Shape:
    """Sizes that the data decide."""

    text_dim: int
    image_dim: int
    classes: int
    hidden: int
    dropout: float


class Method(nn.Module):
    """Base of all methods.

    A subclass defines `loss` and `scores` (or `answer`); `prepare` does whatever comes before the gradient steps. All randomness comes from the
    generators that are handed in.
    """

    gradient: ClassVar[bool] = True
    """trained by gradient steps; False: `prepare` is the whole training and uses no seed"""
    reads_texts: ClassVar[bool] = False
    """answers from the words instead of the features, of which only the post's own are held: no swapped, context or core views"""
    sides: ClassVar[tuple[str, ...]] = ()
    """swapped sides that selection looks at: "text", "image" """
    split_roles: ClassVar[Mapping[str, str]] = {"train": "train", "valid": "valid"}
    training_only: ClassVar[tuple[str, ...]] = ()
    """how names of tensors begin that no answer needs: a checkpoint keeps them, the weights file does not"""

    def __init__(self, settings: Any, shape: Shape, generator: Generator) -> None:
        super().__init__()
        self.settings, self.shape = settings, shape

    def prepare(self, posts: Posts, generator: Generator) -> None:
        """Computes what training needs beforehand, from the train and validation items."""

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Losses of one batch; the entry "loss" is minimised, all are logged. `progress` is the share of steps done."""
        scores = self.scores(posts.inputs(rows), generator)
        return {"loss": cross_entropy(scores, posts.labels[rows]).mean()}

    def settle(self, posts: Posts) -> None:
        """Fits what gradient steps do not reach, such as a strength chosen on validation; called after every epoch, before its validation."""

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """Class scores (B, C); a generator switches dropout on."""
        raise TypeError(f"{type(self).__name__} defines no scores")

    def answer(self, inputs: Inputs) -> Answer:
        """The prediction."""
        return Answer(p=self.scores(inputs).softmax(-1))

    def checks(self, posts: Posts) -> list[Check]:
        """Selection looks at the validation items and at their accepted swaps on the sides that training used; each part counts the same."""
        rows = posts.valid
        found = [Check("factual", posts.inputs(rows), torch.ones(len(rows)))]
        text, image = posts.text_ok[rows].float(), posts.image_ok[rows].float()
        wanted = [("text", "t_swap", "v", text), ("image", "t", "v_swap", image), ("both", "t_swap", "v_swap", text * image)]
        for name, t, v, weights in wanted:
            if (name in self.sides or (name == "both" and len(self.sides) == 2)) and weights.sum() > 0:
                found.append(Check(name, posts.inputs(rows, t, v), weights))
        return found

    def extra(self) -> dict[str, str]:
        """What belongs to the weights but is no tensor."""
        return {}

    def kept(self) -> dict[str, Tensor]:
        """The tensors that answers depend on."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(self.training_only)}

    def restore(self, tensors: dict[str, Tensor], extra: dict[str, str]) -> None:
        """Takes the weights back, as `kept` and `extra` gave them; what only training needs stays as it is."""
        left = {name: value for name, value in self.state_dict().items() if name.startswith(self.training_only)}
        self.load_state_dict(left | tensors)
