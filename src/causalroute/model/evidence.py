"""Mediation evidence on each post: how much its contexts say directly, and whether they can be exchanged without changing the label.

    NDE_m, NDE_TV    cross-fitted heads on t_s, v_s and both (`context`): large for a shortcut, 0 for a cue that only acts through the other side
    c_m              log-odds that a swap of context m keeps the label (`consistency`): positive for a shortcut, negative for a cue of the core

Letters: N or B posts, C classes, m side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from causalroute.model import consistency
from causalroute.model.context import Heads, cross_fit
from causalroute.model.effects import contrast, to_scores
from causalroute.model.view import Part, View

JUDGE = {"steps": 100, "lr": 0.003, "decay": 5.0}
"""Training of the heads on consistency: few steps and much decay, for what they look for is the same throughout a source."""
FEWEST = 50
"""Accepted swaps of train posts below which a side is not asked."""


@dataclass(frozen=True)
class Found:
    """Evidence on B posts; effects are log-odds (B, C)."""

    nde_t: Tensor
    nde_v: Tensor
    nde_tv: Tensor
    keeps_t: Tensor
    """(B,) log-odds that a text swap keeps the label, less those half way to a turned label; 0 where it is not asked"""
    keeps_v: Tensor

    def rows(self, rows: Tensor) -> Found:
        """Of some of the posts."""
        return Found(*(value[rows] for value in vars(self).values()))


@dataclass(frozen=True)
class Views:
    """What the evidence is found in: t, v (N, D); contexts t_s, v_s (N, D); swaps (N, K, D); labels, and which swaps the editor accepts."""

    t: View
    v: View
    t_s: View
    v_s: View
    t_swap: View
    v_swap: View
    y: Tensor
    text_ok: Tensor
    image_ok: Tensor
    joint: tuple[View, ...] | None = None
    """joint features of t with v (N, Dk), of t_swap with v and of t with v_swap (N, K, Dk), where the backbone has any"""


@dataclass(frozen=True)
class Fit:
    """How heads are fitted."""

    folds: int
    hidden: int
    steps: int
    clip: float
    ipw_clip: float
    form: str
    """I: heads see the contexts t_s and v_s; B: they see the whole sides, as the branches of CF-VQA and CLUE do"""
    reference: int
    """hidden units of the reference model of `consistency`"""


class Evidence(nn.Module):
    """The heads of both kinds."""

    def __init__(self, text_dim: int, image_dim: int, classes: int, fit: Fit, mediated: bool, generator: Generator) -> None:
        super().__init__()
        self.fit, self.classes = fit, classes
        size = (classes, fit.folds, fit.hidden, generator)
        self.text, self.image, self.both = (Heads(width, *size) for width in (text_dim, image_dim, text_dim + image_dim))
        judges = [Heads(text_dim + image_dim, 2, fit.folds, fit.hidden, generator) for _ in range(2)] if mediated else []
        self.judges = nn.ModuleList(judges)
        self.middle = nn.Buffer(torch.zeros(()))
        self.asked = nn.Buffer(torch.zeros(2))  # 1 for a side with accepted swaps; without any nothing speaks against the direct effect

    @property
    def log_prior(self) -> Tensor:
        """(C,) of the train labels."""
        return self.text.log_prior

    def learn(self, views: Views, train: Tensor, generator: Generator) -> Found:
        """Fits all heads on the posts `train`; the evidence on all N posts, on train posts by heads that have not seen them."""
        a, b = (views.t, views.v) if self.fit.form == "B" else (views.t_s, views.v_s)
        options: dict[str, Any] = {"folds": self.fit.folds, "hidden": self.fit.hidden, "steps": self.fit.steps, "generator": generator}
        clip, found = self.fit.clip, []
        for own, sides in ((self.text, (a,)), (self.image, (b,)), (self.both, (a, b))):
            x = torch.cat([side[:] for side in sides], 1)  # one after the other: they are the most that is held at a time
            heads, fold = cross_fit(x[train], views.y[train], self.classes, **options)
            own.load_state_dict(heads.state_dict())
            found.append(heads.effects(x, clip).index_copy(0, train, heads.held_out_effects(x[train], fold, clip)))
        if self.fit.form == "B":
            found[2] = self._apart(found[0], found[1])
        zero = found[0].new_zeros(len(views.y))
        kept = self._learn_judges(views, train, found[2][train], options) if self.judges else [zero, zero]
        return Found(found[0], found[1], found[2], kept[0], kept[1])

    def _learn_judges(self, views: Views, train: Tensor, nde_tv: Tensor, options: dict[str, Any]) -> list[Tensor]:
        accepted = (views.text_ok[train], views.image_ok[train])
        if max(int(ok.sum()) for ok in accepted) < FEWEST:
            return [nde_tv.new_zeros(len(views.y))] * 2
        y = views.y[train]
        own, *swapped = self._reference_answers(views, train, nde_tv, options["generator"])
        # Under these weights a context says nothing by itself, so what f still owes to one counts as much for it as against it.
        w = consistency.inverse_probability(self.log_prior, to_scores(nde_tv), y, self.fit.ipw_clip)
        self.middle.fill_(consistency.midpoint((own * w).sum().item() / w.sum().item(), self.classes))
        x, kept = torch.cat([views.t_s[:], views.v_s[:]], 1), []
        for side, (judge, right, rows) in enumerate(zip(self._judges(), swapped, accepted, strict=True)):
            if rows.sum() < FEWEST:
                kept.append(x.new_zeros(len(x)))
                continue
            self.asked[side] = 1
            heads, fold = cross_fit(x[train][rows], right[rows].long(), 2, weights=w[rows], **options | JUDGE)
            judge.load_state_dict(heads.state_dict())
            odds = self._odds(judge, heads.effects(x, self.fit.clip))
            kept.append(odds.index_copy(0, train[rows], self._odds(judge, heads.held_out_effects(x[train][rows], fold, self.fit.clip))))
        return kept

    def _reference_answers(self, views: Views, train: Tensor, nde_tv: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Whether the reference model is right about the posts `train`, their text swaps and their visual swaps."""
        own, swaps = (Part(views.t, train), Part(views.v, train)), (Part(views.t_swap, train, 0), Part(views.v_swap, train, 0))
        joint = None
        if views.joint is not None:
            k, k_t, k_v = views.joint
            joint = (Part(k, train), Part(k_t, train, 0), Part(k_v, train, 0))
        return consistency.reference_answers(*own, views.y[train], self.log_prior + to_scores(nde_tv), swaps, self.fit.reference, generator, joint)

    def _judges(self) -> list[Heads]:
        return [judge for judge in self.judges if isinstance(judge, Heads)]

    def _odds(self, judge: Heads, effects: Tensor) -> Tensor:
        return effects[:, 1] + contrast(judge.log_prior)[1] - self.middle

    def forward(self, t: Tensor, v: Tensor, t_s: Tensor, v_s: Tensor) -> Found:
        """Evidence on posts outside the train split."""
        a, b = (t, v) if self.fit.form == "B" else (t_s, v_s)
        clip = self.fit.clip
        x, zero = torch.cat([t_s, v_s], 1), t.new_zeros(len(t))
        kept = [self._odds(judge, judge.effects(x, clip)) * asked for judge, asked in zip(self._judges(), self.asked, strict=False)] or [zero, zero]
        nde_t, nde_v = self.text.effects(a, clip), self.image.effects(b, clip)
        nde_tv = self._apart(nde_t, nde_v) if self.fit.form == "B" else self.both.effects(torch.cat([a, b], 1), clip)
        return Found(nde_t, nde_v, nde_tv, kept[0], kept[1])

    def _apart(self, nde_t: Tensor, nde_v: Tensor) -> Tensor:
        """NDE_TV of form B, the mediator blocked: a head on both whole sides would learn the core."""
        return (nde_t + nde_v).clamp(-self.fit.clip, self.fit.clip)
