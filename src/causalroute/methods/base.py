"""What a method is: a module with a loss for training and an answer for prediction, both on cached features.

Letters: N items, B batch, C classes, K swaps per item, E experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Generator, Tensor, nn

from causalroute.config import Backbone
from causalroute.model.losses import cross_entropy
from causalroute.model.view import View
from causalroute.pairs import NAME_OF, NOTHING, score_name


class Reader(Protocol):
    """Puts raw posts to a frozen model, for methods that train inside of it."""

    network: nn.Module
    width: int
    """D of its states"""
    device: torch.device

    def passes(self, rows: Tensor, text: str, image: str, swap: int, size: int) -> Iterator[tuple[Tensor, Any]]:
        """The posts `rows` in the given views, at most `size` a pass: which of `rows` (b,), and the batch."""
        ...

    def states(self, batch: Any) -> Tensor:
        """(b, D) float32 at the place where the model answers; gradients flow."""
        ...


@dataclass(frozen=True)
class Origin:
    """Where the raw posts behind the features lie, and the model that they are read with."""

    dataset: str
    editor: str
    held_out: str
    """an editor whose swaps serve evaluation; empty without"""
    name: str
    """of the backbone"""
    backbone: Backbone


@dataclass(frozen=True)
class Raw:
    """How the raw posts, or their tokens, behind `Inputs` are found again: what reads them, and arguments of its `passes` or `read`."""

    reader: Any
    rows: Tensor
    text: str
    image: str
    swap: int


@dataclass(frozen=True)
class Posts:
    """What is known about each item, and its standardised features."""

    ids: list[str]
    splits: list[str]
    texts: list[str]
    labels: Tensor
    """(N,) int64; -1 where unknown"""
    classes: int
    views: Mapping[str, View]
    """t, v (N, D) float32; with an editor also t_s, t_c, v_s, v_c (N, D) and t_swap, v_swap (N, K, D); with a held-out editor t_held_swap, v_held_swap;
    with a backbone that reads pairs also k and the other joint features of `causalroute.pairs`, (N, Dk) and one axis K for each swapped side"""
    text_ok: Tensor
    """(N,) bool: the text swap can be used"""
    image_ok: Tensor
    """(N,) bool: the visual swap can be used"""
    roles: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "valid": "valid"})
    """which split is trained on and which one selects the epoch"""
    sources: list[str] | None = None
    """(N,) true source of each planted post, for labelled oracles alone"""
    scores: Mapping[str, Tensor] = field(default_factory=dict)
    """log-likelihoods (N, V, C) of V prompts' answers by a multimodal LLM, as `causalroute.pairs.score_name` names them; z_0 (V, C); empty: none scored"""
    replies: Tensor | None = None
    """(N,) class that a multimodal LLM's reply to the factual post names; -1: none or several, -2: not asked"""
    reader: Any = None
    """for methods that read more than features of whole sides: what the module's `open_posts` gives"""

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

        def view(name: str, *sides: str) -> Tensor:
            value = self.views[name][rows]
            for _ in filter(lambda side: side.endswith("_swap"), sides):
                value = value[:, swap]
            return value

        found: dict[str, Any] = {name: self.views[name][rows] for name in ("t_s", "v_s") if name in self.views}
        if "k" in self.views:
            found["k"] = view(self._joint(text, image), text, image)
        if self.scores:
            found["told"] = self._told(rows, text, image, swap)
        if self.replies is not None and (text, image) == ("t", "v"):
            found["replies"] = self.replies[rows]
        if self.reader is not None:
            found["raw"] = Raw(self.reader, rows, text, image, swap)
        return Inputs(t=view(text, text), v=view(image, image), texts=[self.texts[row] for row in rows.tolist()], sources=self.sources_of(rows), **found)

    def _told(self, rows: Tensor, text: str, image: str, swap: int) -> Told:
        def score(view: str, *sides: str) -> Tensor | None:
            value = self.scores.get(score_name(view))
            value = None if value is None else value[rows]
            for _ in filter(lambda side: side.endswith("_swap"), sides):
                value = None if value is None else value[:, swap]
            return value

        pair = NAME_OF.get((text, image))
        seen = (None if pair is None else score(pair, text, image), score(text, text), score(image, image))
        return Told(self.scores[score_name(NOTHING)], *seen, score("t_s"), score("v_s"), score("k_s"))

    def _joint(self, text: str, image: str) -> str:
        name = NAME_OF.get((text, image))
        if name is None or name not in self.views:
            raise ValueError(f"the posts hold no joint feature of the pair ({text}, {image}): causalroute.pairs names those that there can be")
        return name


@dataclass(frozen=True)
class Told:
    """Log-likelihoods (B, V, C) of the answers to V prompts by a multimodal LLM that was not trained; None where it was not asked."""

    nothing: Tensor
    """(V, C) without a post"""
    pair: Tensor | None
    """both sides as they are seen"""
    text: Tensor | None
    """the text alone"""
    image: Tensor | None
    """the image alone"""
    text_context: Tensor | None
    """t_s of the post itself; likewise the image's and both"""
    image_context: Tensor | None
    contexts: Tensor | None


@dataclass(frozen=True)
class Inputs:
    """What a method may look at when it answers."""

    t: Tensor
    v: Tensor
    texts: list[str]
    t_s: Tensor | None = None
    """context only of the post itself, also where `t` is a swap"""
    v_s: Tensor | None = None
    k: Tensor | None = None
    """(B, Dk) joint feature of just this t and v; None from a backbone that reads each side alone"""
    told: Told | None = None
    """what an untrained multimodal LLM answers, where it was asked"""
    replies: Tensor | None = None
    """as in `Posts`, of factual posts alone"""
    sources: list[str] | None = None
    """true source of each planted post, for labelled oracles alone"""
    raw: Raw | None = None
    """the raw posts, for methods that read them"""


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
    unparsed: Tensor | None = None
    """(B,) bool: no class was named, and p is uniform: counts as wrong"""


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
    joint_dim: int = 0
    """0: the backbone reads each side alone"""

    def saved(self) -> dict[str, float]:
        """As a weights file holds it: without joint features the same bytes as if there never were any."""
        return {name: size for name, size in vars(self).items() if name != "joint_dim" or size}


class Method(nn.Module):
    """Base of all methods.

    A subclass defines `loss` and `scores` (or `answer`); `prepare` does whatever comes before the gradient steps. All randomness comes from the
    generators that are handed in.
    """

    gradient: ClassVar[bool] = True
    """trained by gradient steps; False: `prepare` is the whole training and uses no seed"""
    factual_only: ClassVar[bool] = False
    """answers from words or replies instead of features, of which only the post's own are held: no swapped, context or core views"""
    asks: ClassVar[bool] = False
    """answers by scored answers or replies of a multimodal LLM instead of features"""
    contexts: ClassVar[bool] = False
    """answers look at the context views t_s and v_s beside the post"""
    sides: ClassVar[tuple[str, ...]] = ()
    """swapped sides that selection looks at: "text", "image" """
    split_roles: ClassVar[Mapping[str, str]] = {"train": "train", "valid": "valid"}
    training_only: ClassVar[tuple[str, ...]] = ()
    """how names of tensors begin that no answer needs: a checkpoint keeps them, the weights file does not"""

    def __init__(self, settings: Any, shape: Shape, generator: Generator) -> None:
        super().__init__()
        self.settings, self.shape = settings, shape
        self.pace = 1.0  # learning rate in units of train.lr

    def attach(self, reader: Any, generator: Generator) -> None:
        """Takes hold of what raw posts or tokens are read with, and draws what depends on its sizes; comes right behind `__init__`."""

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
        self.load_state_dict({name: value for name, value in self.state_dict().items() if name.startswith(self.training_only)} | tensors)
