"""Effects from class scores under intervention, and their unit.

Y_{t,v,k} are the class scores when the text side is t, the visual side v and the mediator k; a star is "no treatment", k* = K(t*, v*).

    TE     = Y(t, v, k)      - Y(t*, v*, k*)
    NDE_T  = Y(t_s, v*, k*)  - Y(t*, v*, k*)            text context alone, mediator blocked
    NDE_V  = Y(t*, v_s, k*)  - Y(t*, v*, k*)            visual context alone
    NDE_TV = Y(t_s, v_s, k*) - Y(t*, v*, k*)            both contexts
    INT    = NDE_TV - NDE_T - NDE_V
    TIE    = TE - NDE_TV
    S      = TE - w_T a_T NDE_T - w_V a_V NDE_V

Form I takes the five scores from a network that is shown counterfactual inputs (t_s, v*), form B from unimodal branches and a constant (`fusion.worlds`).

Scores and effects are compared in one unit, log-odds against the class prior:

    contrast(s)_y = s_y - s_other             two classes: log-odds of y
    contrast(s)_y = s_y                       more classes: log-probability of y
    effect(s)     = contrast(log softmax s) - contrast(log prior)

Letters: B items, C classes; every tensor is (B, C) unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """Class scores of the five worlds, (B, C) each; `none` may be (C,)."""

    full: Tensor
    """Y(t, v, k)"""
    none: Tensor
    """Y(t*, v*, k*)"""
    text: Tensor
    """Y(t_s, v*, k*)"""
    image: Tensor
    """Y(t*, v_s, k*)"""
    both: Tensor
    """Y(t_s, v_s, k*)"""


@dataclass(frozen=True)
class Effects:
    """Effects on the class scores, (B, C) each."""

    te: Tensor
    nde_t: Tensor
    nde_v: Tensor
    nde_tv: Tensor

    @classmethod
    def of(cls, scores: Scores) -> Effects:
        """Differences to the untreated world."""
        return cls(scores.full - scores.none, scores.text - scores.none, scores.image - scores.none, scores.both - scores.none)

    @property
    def interaction(self) -> Tensor:
        """INT: what the two contexts do together beyond their sum."""
        return self.nde_tv - self.nde_t - self.nde_v

    @property
    def indirect(self) -> Tensor:
        """TIE: what runs through the mediator, both direct paths blocked."""
        return self.te - self.nde_tv

    def indirect_past(self, *, text: bool, image: bool) -> Tensor:
        """TIE with only the named direct paths blocked: one-sided forms, such as TE - NDE_T of CF-VQA; neither path blocked gives TE."""
        if text and image:
            return self.indirect
        blocked = self.nde_t if text else self.nde_v
        return self.te - blocked if text or image else self.te

    def debiased(self, w_t: Tensor, w_v: Tensor, a_t: float = 1.0, a_v: float = 1.0) -> Tensor:
        """S with gates w_t, w_v (B,) and amounts a."""
        return self.te - a_t * w_t[:, None] * self.nde_t - a_v * w_v[:, None] * self.nde_v


def on_label(effects: Tensor, labels: Tensor) -> Tensor:
    """The effect on each item's own class: (B, C), (B,) -> (B,)."""
    return effects.gather(1, labels[:, None].long())[:, 0]


def contrast(scores: Tensor) -> Tensor:
    """(..., C) -> (..., C): log-odds for two classes, unchanged for more."""
    return scores - scores.flip(-1) if scores.shape[-1] == 2 else scores


def effect(scores: Tensor, log_prior: Tensor) -> Tensor:
    """Effect of what produced `scores` (B, C) against the prior (C,), "no treatment"."""
    return contrast(scores.log_softmax(-1)) - contrast(log_prior)


def to_scores(effects: Tensor) -> Tensor:
    """Effects as an addition to class scores: the inverse of `contrast` up to a constant per item, (B, C) -> (B, C)."""
    return effects / 2 if effects.shape[-1] == 2 else effects


def strength(effects: Tensor) -> Tensor:
    """How far a direct effect can move the decision: the range over classes of what it adds to the scores, (B, C) -> (B,); |log-odds| for two classes."""
    scores = to_scores(effects)
    return scores.amax(-1) - scores.amin(-1)
