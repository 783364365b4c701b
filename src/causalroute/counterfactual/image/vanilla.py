"""A small vanilla fusion head: what an encoder pair, which has no shared space, answers to a post.

f(t, v) is one hidden layer over the concatenated factual features, trained on the train split. t* is the mean text (features are centred: 0). The
interaction f(t, v) - f(t*, v) of the predicted class is what the image adds *to this text* (the mediator), not what it says alone (the shortcut).
Letters: M posts, B of them in a batch, Dt and Dv widths of text and image features, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch

from causalroute.counterfactual import heads
from causalroute.counterfactual.posts import Posts
from causalroute.rng import torch_generator

STEPS, DECAY = 600, 1e-2
"""Steps and weight decay."""


@dataclasses.dataclass(frozen=True)
class Vanilla:
    """The trained head and the posts it was trained beside."""

    head: torch.nn.Module
    """(B, Dt + Dv) standardised -> (B, C)"""
    text: torch.Tensor
    """(M, Dt) standardised text features"""
    image: torch.Tensor
    """(M, Dv) standardised image features"""
    mean: torch.Tensor
    """(Dv,) of the image features of the train split"""
    scale: torch.Tensor
    """(Dv,) standard deviation of the same"""

    def gradients(self) -> torch.Tensor:
        """Of the interaction of the predicted class with respect to the image feature: (M, Dv)."""
        probe = self.image.clone().requires_grad_(True)
        both, alone = self._logits(self.text, probe)
        chosen = both.argmax(1, keepdim=True)
        (gradient,) = torch.autograd.grad((both - alone).gather(1, chosen).sum(), probe)
        return gradient / self.scale

    def answers(self, rows: list[int], features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """f(t, v) and f(t*, v) of the class predicted for the unedited post, with `features` (B, Dv) for v: (B,) each."""
        text = self.text[rows]
        chosen = self._logits(text, self.image[rows])[0].argmax(1, keepdim=True)
        both, alone = self._logits(text, heads.standardised(features, (self.mean, self.scale)))
        return both.gather(1, chosen)[:, 0], alone.gather(1, chosen)[:, 0]

    def _logits(self, text: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.head(torch.cat([text, image], 1)), self.head(torch.cat([torch.zeros_like(text), image], 1))


@dataclasses.dataclass(frozen=True)
class Fusion:
    """A trained head with the scales of what it reads: all that a post which was not there needs."""

    head: torch.nn.Module
    """(B, Dt + Dv) standardised -> (B, C)"""
    text: tuple[torch.Tensor, torch.Tensor]
    """mean and deviation of the text features of the train split, (Dt,) each"""
    image: tuple[torch.Tensor, torch.Tensor]
    """the same of the image features, (Dv,) each"""

    def beside(self, text: torch.Tensor, image: torch.Tensor) -> Vanilla:
        """The head and M posts with features (M, Dt) and (M, Dv)."""
        return Vanilla(self.head, heads.standardised(text, self.text), heads.standardised(image, self.image), *self.image)

    def tensors(self) -> dict[str, torch.Tensor]:
        """By name, as `of` takes them."""
        scales = {"text.mean": self.text[0], "text.std": self.text[1], "image.mean": self.image[0], "image.std": self.image[1]}
        return scales | {f"head.{name}": value for name, value in self.head.state_dict().items()}

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> Fusion:
        """From what `tensors` gave."""
        weights = {name.removeprefix("head."): value for name, value in tensors.items() if name.startswith("head.")}
        first, last = weights["0.weight"], weights["2.weight"]
        head = heads.blank(first.shape[1], last.shape[0])
        head.load_state_dict(weights)
        return cls(head, (tensors["text.mean"], tensors["text.std"]), (tensors["image.mean"], tensors["image.std"]))


def train_vanilla(posts: Posts, text: torch.Tensor, image: torch.Tensor, seed: int) -> Vanilla:
    """The fusion head of M posts, beside them; arguments as in `fit_fusion`."""
    return fit_fusion(posts, text, image, seed).beside(text.float(), image.float())


def fit_fusion(posts: Posts, text: torch.Tensor, image: torch.Tensor, seed: int) -> Fusion:
    """The fusion head of M posts.

    Args:
        posts: M posts; labels of the train split are read, no others.
        text: (M, Dt) factual text features.
        image: (M, Dv) factual image features.
        seed: of the weights and of the order of posts.
    """
    train = torch.from_numpy(np.flatnonzero(posts.train))
    text, image = text.float(), image.float()
    scales = heads.scale_of(text[train]), heads.scale_of(image[train])
    inputs = torch.cat([heads.standardised(text, scales[0]), heads.standardised(image, scales[1])], 1)
    labels, source = torch.tensor(posts.labels), torch_generator(seed, "fusion head")

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        rows = train[torch.randint(len(train), (heads.BATCH,), generator=source)]
        return inputs[rows], labels[rows]

    return Fusion(heads.fit(inputs.shape[1], posts.classes, batch, STEPS, DECAY, source), *scales)
