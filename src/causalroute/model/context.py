"""Cross-fitted context heads: how much the context alone says about the label.

    NDE_m(x) = contrast(log p(y | m_s)) - contrast(log p(y)),   clipped at +-5;   m_s the context-only view of modality m

Small MLPs, one per fold, trained together; a post of the train split is judged by the head that has not seen it, any other post by the mean of all
heads. The step at which training stops and one common scale are those with the smallest held-out loss, so that effects are calibrated.

Letters: F folds, N items, D width, H hidden units, C classes.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from causalroute.model.effects import effect
from causalroute.model.optimizer import AdamW, cosine

EVERY = 10
"""steps between two looks at the held-out loss"""
ROWS = 512
"""items per step"""


class Heads(nn.Module):
    """F one-hidden-layer heads over the same input, evaluated by one matrix product."""

    def __init__(self, inputs: int, classes: int, folds: int, hidden: int, generator: Generator) -> None:
        super().__init__()
        self.mean, self.std = nn.Buffer(torch.zeros(inputs)), nn.Buffer(torch.ones(inputs))
        self.inner = nn.Buffer(_uniform((inputs, folds, hidden), inputs, generator))
        self.inner_bias = nn.Buffer(torch.zeros(folds, hidden))
        self.outer = nn.Buffer(_uniform((folds, hidden, classes), hidden, generator))
        self.outer_bias = nn.Buffer(torch.zeros(folds, classes))
        self.scale = nn.Buffer(torch.ones(()))
        self.log_prior = nn.Buffer(torch.full((classes,), -math.log(classes)))

    def scores(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, F, C)."""
        x = (x - self.mean).div_(self.std)
        h = functional.relu((x @ self.inner.flatten(1)).view(x.shape[0], *self.inner_bias.shape) + self.inner_bias)
        return torch.einsum("nfh,fhc->nfc", h, self.outer) + self.outer_bias

    def effects(self, x: Tensor, clip: float) -> Tensor:
        """Direct effect of a context no head was trained on: (N, D) -> (N, C)."""
        return self._effects(self.scores(x).log_softmax(-1).mean(1), clip)

    def held_out_effects(self, x: Tensor, fold: Tensor, clip: float) -> Tensor:
        """Direct effect of train contexts, each by the head that left it out: x (N, D), fold (N,) -> (N, C)."""
        return self._effects(_own(self.scores(x), fold).log_softmax(-1), clip)

    def _effects(self, log_p: Tensor, clip: float) -> Tensor:
        prior = self.log_prior
        return effect(prior + self.scale * (log_p - prior), prior).clamp(-clip, clip)


def _uniform(shape: tuple[int, ...], fan_in: int, generator: Generator) -> Tensor:
    bound = 1 / math.sqrt(max(fan_in, 1))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _own(scores: Tensor, fold: Tensor) -> Tensor:
    """Picks each item's own fold: (N, F, C) -> (N, C)."""
    return scores[torch.arange(scores.shape[0]), fold]


def cross_fit(
    x: Tensor,
    y: Tensor,
    classes: int,
    *,
    folds: int,
    hidden: int,
    generator: Generator,
    steps: int = 200,
    lr: float = 0.01,
    decay: float = 0.05,
    weights: Tensor | None = None,
) -> tuple[Heads, Tensor]:
    """Trains the heads on all items but those of their own fold.

    Args:
        x: (N, D) standardised features of the context.
        y: (N,) labels.
        classes: C.
        folds: F, at least 2.
        hidden: H.
        generator: initial weights, folds and batches.
        steps: AdamW steps; the one with the smallest held-out loss is kept, looked at every tenth step.
        lr: peak learning rate, cosine schedule.
        decay: AdamW weight decay.
        weights: (N,) how much each item counts; None: all the same.

    Returns:
        The heads and each item's fold (N,).

    Raises:
        ValueError: with fewer than two folds or fewer items than folds.
    """
    if folds < 2 or x.shape[0] < folds:
        raise ValueError(f"cross-fitting needs at least 2 folds and as many items: {folds} folds, {x.shape[0]} items")
    heads = Heads(x.shape[1], classes, folds, hidden, generator)
    fold = torch.randperm(x.shape[0], generator=generator) % folds
    w = torch.ones(len(y)) if weights is None else weights * len(y) / weights.sum()
    heads.log_prior.copy_(_log_prior(y, classes, w))
    # Contexts are edited inputs: standardised with the numbers of whole posts they would all lie far to one side, where units die.
    std = x.std(0, correction=0)
    heads.mean.copy_(x.mean(0))
    heads.std.copy_(torch.where(std > 1e-3, std, torch.ones_like(std)))
    learnt = [heads.inner, heads.inner_bias, heads.outer, heads.outer_bias]
    for tensor in learnt:
        tensor.requires_grad_()
    optimizer = AdamW(learnt, decay)
    best, kept = math.inf, [tensor.detach().clone() for tensor in learnt]
    for step in range(steps):
        rows = torch.randperm(x.shape[0], generator=generator)[:ROWS] if x.shape[0] > ROWS else slice(None)
        optimizer.step(_seen_loss(heads.scores(x[rows]), y[rows], fold[rows], w[rows]), cosine(lr, step / steps))
        if (step + 1) % EVERY == 0:
            held_out = _held_out_loss(heads, x, y, fold, w)
            if held_out < best:
                best, kept = held_out, [tensor.detach().clone() for tensor in learnt]
    for tensor, value in zip(learnt, kept, strict=True):
        tensor.requires_grad_(False).copy_(value)
        tensor.grad = None
    _calibrate(heads, x, y, fold, w)
    return heads, fold


def _log_prior(y: Tensor, classes: int, w: Tensor) -> Tensor:
    """Log of the label frequencies, one pseudo-count per class."""
    counts = torch.bincount(y, w, minlength=classes).float() + 1
    return (counts / counts.sum()).log()


def _seen_loss(scores: Tensor, y: Tensor, fold: Tensor, w: Tensor) -> Tensor:
    """Cross-entropy of every head on the items of the other folds, summed over heads."""
    folds = scores.shape[1]
    loss = functional.cross_entropy(scores.flatten(0, 1), y.repeat_interleave(folds), reduction="none").view(-1, folds)
    seen = (fold[:, None] != torch.arange(folds)) * w[:, None]
    return (loss * seen).sum() / seen.sum() * folds


def _mean_loss(scores: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return (functional.cross_entropy(scores, y, reduction="none") * w).mean()


@torch.no_grad()
def _held_out_loss(heads: Heads, x: Tensor, y: Tensor, fold: Tensor, w: Tensor) -> float:
    return _mean_loss(_own(heads.scores(x), fold), y, w).item()


@torch.no_grad()
def _calibrate(heads: Heads, x: Tensor, y: Tensor, fold: Tensor, w: Tensor) -> None:
    """Sets the scale of the log-ratios, .3 to 2, to the one with the smallest held-out loss."""
    prior = heads.log_prior
    ratio = _own(heads.scores(x), fold).log_softmax(-1) - prior
    scales = torch.arange(0.3, 2.01, 0.05)
    losses = torch.stack([_mean_loss(prior + s * ratio, y, w) for s in scales])
    heads.scale.copy_(scales[losses.argmin()])
