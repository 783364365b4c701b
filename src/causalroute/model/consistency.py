"""Does a context swap keep the label? The mediated side of the evidence, estimated without a source label.

    f              minimises CE(f(t, v) + NDE_TV, y): what is left to say once the direct effects are said            cross-fitted over F folds
    A_m(i)         = [f of post i with the context of side m swapped is y_i],  f of the fold that has not seen i
    c_m(t_s, v_s)  = log-odds of A_m = 1 given the contexts, under weights p(y) / p(y | t_s, v_s),                    cross-fitted heads
                     less those half way between f's accuracy and its error

f cannot live on direct effects, for they are given to it (a product of experts, Hinton 2002). Where a cue is a shortcut, another one leaves f as right as it
was; where the cue belongs to the core, its swap turns f wrong, however much or little the cue says on its own.

f sees the joint feature of the very pair it judges as well, where the backbone has one.

Letters: N posts, F folds, C classes.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from causalroute.model.layers import Predictor
from causalroute.model.optimizer import AdamW, cosine
from causalroute.model.view import View

FOLDS, EPOCHS, STEPS, ROWS, LR, DECAY, DROPOUT = 4, 80, 800, 256, 2e-3, 1e-1, 0.1
"""Folds, passes over the posts but at most so many steps, posts per step, peak learning rate, weight decay and dropout of the reference model."""
Joint = tuple[View, View, View]


def inverse_probability(log_prior: Tensor, direct: Tensor, y: Tensor, clip: float) -> Tensor:
    """(N,) p(y) / p(y | context), at most `clip`, from direct effects as class scores (N, C) and the prior (C,)."""
    log_p = (log_prior + direct).log_softmax(-1).gather(1, y[:, None])[:, 0]
    return (log_prior[y] - log_p).exp().clamp(max=clip)


def reference_answers(
    t: View, v: View, y: Tensor, direct: Tensor, swaps: tuple[View, View], hidden: int, generator: Generator, joint: Joint | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Whether f is right about each post, about its text swap and about its visual swap: (N,) bool each, by the fold that has not seen the post.

    Args:
        t: (N, Dt) features.
        v: (N, Dv) features.
        y: (N,) labels.
        direct: (N, C) direct effects of both contexts, as class scores, prior included.
        swaps: the two sides with another context, shaped as t and v.
        hidden: units of f.
        generator: folds, first weights and batches.
        joint: (N, Dk) joint features of the posts, of their text swaps and of their visual swaps, where the backbone has any.
    """
    k, k_t, k_v = joint or (None, None, None)
    pairs = ((t, v, k), (swaps[0], v, k_t), (t, swaps[1], k_v))
    fold = torch.randperm(len(y), generator=generator) % FOLDS
    right = torch.zeros(3, len(y), dtype=torch.bool)
    for held in range(FOLDS):
        f = _reference(t, v, y, direct, torch.nonzero(fold != held)[:, 0], hidden, generator, k)
        rows = torch.nonzero(fold == held)[:, 0]
        with torch.no_grad():
            answers = [f(a[rows], b[rows], k=_some(c, rows)) for a, b, c in pairs]
        for kind, scores in enumerate(answers):
            right[kind, rows] = scores.argmax(1) == y[rows]
    return right[0], right[1], right[2]


def _some(k: View | None, rows: Tensor) -> Tensor | None:
    return None if k is None else k[rows]


def _reference(t: View, v: View, y: Tensor, direct: Tensor, rows: Tensor, hidden: int, generator: Generator, k: View | None = None) -> Predictor:
    f = Predictor(t.shape[1], v.shape[1], direct.shape[1], hidden, DROPOUT, generator, 0 if k is None else k.shape[1])
    optimizer = AdamW(f.parameters(), DECAY)
    steps = min(STEPS, -(-EPOCHS * len(rows) // ROWS))
    for step in range(steps):
        batch = rows[torch.randint(len(rows), (ROWS,), generator=generator)]
        scores = f(t[batch], v[batch], generator, _some(k, batch))
        optimizer.step(functional.cross_entropy(scores + direct[batch], y[batch]), cosine(LR, step / steps))
    return f


def midpoint(accuracy: float, classes: int) -> float:
    """Log-odds half way between `accuracy` and what is left to another class when the label has turned."""
    turned = (1 - accuracy) / (classes - 1)
    middle = (accuracy + turned) / 2
    return math.log(middle / (1 - middle))
