"""A small vanilla fusion head: what an encoder pair, which has no shared space, answers to a post.

f(t, v) is one hidden layer over the concatenated factual features, trained on the train split. t* is the mean text (features are centred: 0). The
interaction f(t, v) - f(t*, v) of the predicted class is what the image adds *to this text* (the mediator), not what it says alone (the shortcut).
Letters: M posts, B of them in a batch, Dt and Dv widths of text and image features, C classes.
"""

from __future__ import annotations

import dataclasses

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


def train_vanilla(posts: Posts, text: torch.Tensor, image: torch.Tensor, seed: int) -> Vanilla:
    """The fusion head of M posts.

    Args:
        posts: M posts; labels of the train split are read, no others.
        text: (M, Dt) factual text features.
        image: (M, Dv) factual image features.
        seed: of the weights and of the order of posts.
    """
    train = torch.from_numpy(np.flatnonzero(posts.train))
    text, image = text.float(), image.float()
    scale = heads.scale_of(image[train])
    text, image = heads.standardised(text, heads.scale_of(text[train])), heads.standardised(image, scale)
    inputs, labels, source = torch.cat([text, image], 1), torch.tensor(posts.labels), torch_generator(seed, "fusion head")

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        rows = train[torch.randint(len(train), (heads.BATCH,), generator=source)]
        return inputs[rows], labels[rows]

    return Vanilla(heads.fit(inputs.shape[1], posts.classes, batch, STEPS, DECAY, source), text, image, *scale)
