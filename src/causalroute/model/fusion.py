"""Form B: a joint branch and two unimodal ones, fused to class scores (Niu et al. 2021; RUBi: Cadene et al. 2019).

    SUM    h(z_k, z_t, z_v) = log sigmoid(z_k + z_t + z_v)
    HM     h(z_k, z_t, z_v) = log z - log(1 + z),   z = sigmoid(z_k) sigmoid(z_t) sigmoid(z_v)
    RUBi   h(z_k, z_t, z_v) = z_k sigmoid(z_t) sigmoid(z_v)

A branch that gets no treatment says the constant c, which a method learns: Y(t, v, k) = h(z_k, z_t, z_v), Y(t_s, v*, k*) = h(c, z_t, c) and so on. The
unimodal branch of the whole side stands for its context, as in the published models. Without a visual branch (z_v = None) h has two arguments: CLUE and
the one-sided models.

Letters: B items, C classes; z_k joint, z_t text, z_v visual branch, (B, C) each; c () or (C,).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from causalroute.model.effects import Scores

Kind = Literal["sum", "hm", "rubi"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def fuse(kind: Kind, z_k: Tensor, z_t: Tensor, z_v: Tensor | None = None) -> Tensor:
    """h: class scores (B, C)."""
    parts = [z_k, z_t] if z_v is None else [z_k, z_t, z_v]
    if kind == "sum":
        return functional.logsigmoid(sum(parts[1:], parts[0]))
    if kind == "hm":
        log_z = [functional.logsigmoid(part) for part in parts]
        return functional.logsigmoid(sum(log_z[1:], log_z[0]))  # log z - log(1 + z) = log sigmoid(log z)
    gates = [torch.sigmoid(part) for part in parts[1:]]
    return z_k * (gates[0] if z_v is None else gates[0] * gates[1])


def worlds(kind: Kind, z_k: Tensor, z_t: Tensor, z_v: Tensor | None, c: Tensor) -> Scores:
    """Scores of the five worlds; without a visual branch the image world is the untreated one, and both contexts are the text's."""
    c = c.expand_as(z_k)
    none, text = (c, c), (c, z_t)
    if z_v is None:
        full, image, both = (z_k, z_t), none, text
        return Scores(*(fuse(kind, *arguments) for arguments in (full, none, text, image, both)))
    return Scores(*(fuse(kind, *arguments) for arguments in ((z_k, z_t, z_v), (*none, c), (*text, c), (*none, z_v), (*text, z_v))))
