"""Why a model answers as it does: effects, gates, experts, words and regions of one post. Letters: S seeds, M posts, C classes, E experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from causalroute.methods.base import Answer, Method
from causalroute.model.gates import KINDS
from causalroute.serving.posts import Explanation, Region, Word
from causalroute.serving.views import Views

EFFECTS: dict[str, Callable[[Answer], Tensor | None]] = {
    "TE": lambda answer: answer.te,
    "NDE_text": lambda answer: answer.nde_t,
    "NDE_image": lambda answer: answer.nde_v,
    "NDE_both": lambda answer: answer.nde_tv,
    "TIE": lambda answer: None if answer.te is None or answer.nde_tv is None else answer.te - answer.nde_tv,
}


def explanation(method: Method, answers: Sequence[Answer], views: Views, row: int, classes: Sequence[str]) -> Explanation:
    """Of post `row`; effects, gates and weights are means over seeds.

    Args:
        method: of any seed: what its experts are called.
        answers: of S seeds to M posts.
        views: of the M posts.
        row: which post.
        classes: C names.
    """
    effects = {}
    for name, of in EFFECTS.items():
        value = _mean([of(answer) for answer in answers], row)
        if value is not None:
            effects[name] = dict(zip(classes, value, strict=True))
    gates = _mean([answer.gates for answer in answers], row)
    experts = _mean([answer.experts for answer in answers], row) or []
    named = dict(zip(KINDS, gates, strict=True)) if gates else {}
    return Explanation(effects, named, tuple(zip(_names(method, len(experts)), experts, strict=True)), _words(views, row), _region(views, row))


def _mean(values: Sequence[Tensor | None], row: int) -> list[float] | None:
    there = [value[row] for value in values if value is not None]
    found: list[float] | None = torch.stack(there).double().mean(0).tolist() if there else None
    return found


def _names(method: Method, count: int) -> list[str]:
    """Experts by kind, numbered where there are several of it; by number alone where they have no kind."""
    kinds = getattr(method, "kinds", None)
    if kinds is None:
        return [f"expert {number + 1}" for number in range(count)]
    each = count // len(KINDS)
    return [KINDS[kind] if each == 1 else f"{KINDS[kind]} {number % each + 1}" for number, kind in enumerate(kinds.tolist())]


def _words(views: Views, row: int) -> tuple[Word, ...]:
    if views.marks is None:
        return ()
    text, (tokens, marks) = views.texts[row], views.marks[row]
    return tuple(Word(text[token.start : token.end], token.start, token.end, bool(mark)) for token, mark in zip(tokens, marks, strict=True))


def _region(views: Views, row: int) -> Region | None:
    mask = views.masks.get(row)
    return None if mask is None else Region(len(mask), tuple(tuple(bool(cell) for cell in line) for line in mask))
