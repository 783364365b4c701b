"""The causal mixture of experts: mediation-gated counterfactual training. A reconstruction; docs/methods.md says from what.

    NDE_m = contrast(log p(y | m_s)) - contrast(log p(y))            cross-fitted context heads, m in {T, V}
    g     = gate(evidence) over {keep, text, image, both}            q_T = g_text + g_both, q_V = g_image + g_both, q_TV = g_both
    z_e   = W (h + B_e gelu(A_e h)),   S = sum_e w_e z_e              w from the gate through causalroute.routing
    TE    = S + q_T a_T NDE_T + q_V a_V NDE_V                        a = softplus(learnable), start 1
    L     = mean over x, x_T, x_V, x_TV of u CE(S), weighted 1, r q_T, r q_V, r q_TV
            + own * mean_e CE(z_e) on x and all swaps of the sides that e treats + te * CE(TE) (+ the learned router's losses)
    u     = 1, or with `reweight` p(y) / p(y | contexts that are not treated), so that every direct effect is removed once; a side whose swap the editor
            or the gate does not accept is left alone, for then its context is not known either

The answer is S; TE, effects, gates and expert weights are shown beside it.
Letters: B batch, E experts, C classes, r ramp; views are (text own/swapped, image own/swapped).
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from causalroute.config import section
from causalroute.methods.base import Answer, Inputs, Posts, Shape
from causalroute.methods.mediated import Mediated
from causalroute.methods.swapping import Batch, drawn
from causalroute.model import gates
from causalroute.model.effects import effect, strength, to_scores
from causalroute.model.evidence import Found
from causalroute.model.experts import CollapseAlarm, Experts
from causalroute.model.layers import Encoder, linear
from causalroute.model.losses import cross_entropy, ramp, swap_weights, weighted_mean
from causalroute.model.optimizer import AdamW
from causalroute.routing import Routing, load_balance, route, z_loss

EDITOR = "dataset"
SEARCH = {"threshold": (0.5, 0.8, 1.2)}
BIAS_STEP = 0.01
"""Change of an expert's selection bias per step (loss-free balancing, Wang et al. 2024)."""

log = logging.getLogger(__name__)


@section
class Settings:
    """Settings of the causal mixture of experts."""

    ramp_start: float = 0.1
    """share of steps before the swap terms set in"""
    ramp_end: float = 0.4
    """share of steps from which they count fully"""
    folds: int = 4
    """cross-fitting folds of the context heads"""
    context_hidden: int = 32
    """hidden units of a context head"""
    context_steps: int = 200
    """most training steps of the context heads; the held-out loss chooses among them"""
    clip: float = 5.0
    """largest direct effect, log-odds"""
    form: Literal["I", "B"] = "I"
    """direct effects from heads on the contexts t_s, v_s (I) or on the whole sides (B: unimodal branches, as in CF-VQA and CLUE)"""
    direct: Literal["both", "text", "image", "none"] = "both"
    """sides whose direct effect is looked at; the others count as without any"""
    router: Literal["rule", "mediated", "learned", "ce", "always", "constant", "random", "oracle"] = "mediated"
    """rule: treat a side with a direct effect; mediated: unless its swap turns the label; learned: starts as the rule, follows costs; others: controls"""
    reweight: bool = True
    """weigh posts by p(y) / p(y | contexts that are not treated)"""
    threshold: float = 0.8
    """log-odds of the direct effect above which a side is treated"""
    temperature: float = 0.0
    """softness of the rule in log-odds; 0 is the hard rule"""
    per_kind: int = 1
    """experts of each of the kinds keep, text, image, both"""
    rank: int = 8
    """rank of an adapter; 0: one predictor, no experts"""
    top_k: int = 2
    """experts per post; 0: all of them, weighted"""
    own: float = 1.0
    """weight of each expert's own counterfactual loss over all posts"""
    amount: Literal["learned", "one"] = "learned"
    """a_T and a_V of the factual score: learned from 1 on, or 1"""
    swaps: bool = True
    """counterfactual training; off: cross-entropy on the posts alone, and `subtract` takes the direct effects from the answer"""
    subtract: float = 0.0
    """direct effects of the treated sides taken from the answer, times this"""
    te: float = 1.0
    """weight of the cross-entropy of the factual score TE"""
    balancing: Literal["loss", "bias"] = "loss"
    """experts of one kind: Switch load-balance loss, or loss-free: a bias that enters their choice alone and follows their load"""
    balance: float = 0.01
    """weight of the load-balance loss, where something is learned about routing"""
    z: float = 0.001
    """weight of the router's z-loss, likewise"""
    pretrain: int = 80
    """learned router: steps on the rule beforehand"""
    router_start: float = 0.25
    """learned router: share of steps from which the costs train it"""
    residual: float = 0.1
    """learned router: price of a direct effect left untreated, per log-odds"""
    ipw_clip: float = 20.0
    """largest inverse-probability weight, of the learned router's costs, of `reweight` and of the mediated rule's heads"""

    def __post_init__(self) -> None:
        if self.top_k > 4 * self.per_kind:
            raise ValueError(f"top_k = {self.top_k} exceeds the {4 * self.per_kind} experts (4 kinds, per_kind = {self.per_kind})")


class Method(Mediated):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.encoder = Encoder(shape.text_dim, shape.image_dim, shape.hidden, shape.dropout, generator, shape.joint_dim)
        self.experts = Experts(shape.hidden, settings.rank, 4 * settings.per_kind, shape.classes, generator)
        self.within = linear(shape.hidden, 4 * settings.per_kind, generator) if settings.per_kind > 1 else None
        start = torch.full((2,), math.log(math.e - 1))  # softplus = 1
        self.amount = nn.Parameter(start) if settings.amount == "learned" else nn.Buffer(start)
        self.mediate(settings.form, generator)
        self.bias = nn.Buffer(torch.zeros(4 * settings.per_kind)) if settings.balancing == "bias" else None
        self.alarm = CollapseAlarm()

    def prepare(self, posts: Posts, generator: Generator) -> None:
        """Fits the heads. A learned router starts as the rule."""
        super().prepare(posts, generator)
        if self.settings.router == "learned":
            self._start_router(posts, generator)

    def _looked_at(self, found: Found) -> Found:
        """The evidence without the direct effects that `direct` leaves out."""
        zero, sides = torch.zeros_like(found.nde_t), self.settings.direct
        hidden = {name: zero for name, side in (("nde_t", "text"), ("nde_v", "image")) if sides not in ("both", side)}
        return replace(found, **hidden)

    def _start_router(self, posts: Posts, generator: Generator) -> None:
        """A few steps of cross-entropy against the rule."""
        optimizer = AdamW(self.gate.parameters(), weight_decay=0.0)
        train = posts.train
        for _ in range(self.settings.pretrain):
            rows = train[torch.randint(len(train), (256,), generator=generator)]
            found, inputs = self._known(rows), posts.inputs(rows)
            logits = self.gate.logits(inputs.t, inputs.v, found, self.evidence.log_prior, inputs.k)
            optimizer.step(functional.cross_entropy(logits, self.gate.rule(found)), lr=0.01)

    def states(self, batch: Batch, generator: Generator | None) -> Any:
        """What the experts act on, of each post own and swapped: the trunk (2, 2, B, H)."""
        return self.encoder.grid(batch.t, batch.v, generator, batch.k)

    def mixture(self, h: Any, log_gates: Tensor) -> tuple[Tensor, Tensor, Routing]:
        """Scores of the mixture (..., B, C) and of the experts (..., B, E, C)."""
        z = self.experts(h)
        found, weights = self.routing(log_gates, h)
        return (weights[..., None] * z).sum(-2), z, found

    def total(self, s: Tensor, g: Tensor, found: Found) -> Tensor:
        """TE as class scores (B, C): S plus the weighted direct effects."""
        q_t, q_v, _ = gates.switches(g)
        a_t, a_v = functional.softplus(self.amount)
        return s + (a_t * q_t)[:, None] * to_scores(found.nde_t) + (a_v * q_v)[:, None] * to_scores(found.nde_v)

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """The terms of the module's L."""
        y, found, set_ = posts.labels[rows], self._known(rows), self.settings
        batch = drawn(posts, rows, generator)
        t, v, k = batch.own
        log_gates = self.log_gates(t, v, found, posts.sources_of(rows), k)
        g = log_gates.exp()
        text, image = posts.text_ok[rows].float(), posts.image_ok[rows].float()
        strength_now = ramp(progress, set_.ramp_start, set_.ramp_end) * set_.swaps
        h = self.states(batch, generator)
        s, z, routing = self.mixture(h, log_gates.detach() if set_.router == "learned" else log_gates)
        q_t, q_v, q_tv = (q.detach() for q in gates.switches(g))
        ce = cross_entropy(s, y)  # (2, 2, B)
        importance = self._importance(y, (1 - q_t) * text, (1 - q_v) * image, found)
        weights = swap_weights(q_t * text, q_v * image, q_tv * text * image, strength_now) * importance
        parts = {"s": weighted_mean(ce, weights), "factual": ce[0, 0].mean()}
        if set_.rank > 0:
            parts["own"] = self._own(z, y, text, image, strength_now)
        parts["te"] = cross_entropy(self.total(s[0, 0], g.detach(), found), y).mean()
        loss = parts["s"] + set_.own * parts.get("own", 0.0) + set_.te * parts["te"]
        if self.within is not None:
            loss = loss + self._balanced(routing) + set_.z * self._within_z(h, batch)
        if set_.router == "learned" and progress >= set_.router_start:
            parts["router"] = self._router_loss(self.gate.logits(t, v, found, self.evidence.log_prior, k), z[0, 0].detach(), y, found)
            loss = loss + parts["router"]
        return {"loss": loss, **parts}

    def _balanced(self, routing: Routing) -> Tensor | float:
        """What keeps experts of a kind in use: a loss, or a step of the bias towards those with less than their share."""
        if self.bias is None:
            return self.settings.balance * load_balance(routing)
        load = routing.counts.float().view(4, -1)
        self.bias.add_(BIAS_STEP * (load.mean(1, keepdim=True) - load).sign().flatten())
        return 0.0

    def settle(self, posts: Posts) -> None:
        """Tells, once, of experts that next to no post reaches."""
        if self.within is None:
            return
        weights = self.answer(posts.inputs(posts.valid)).experts
        assert weights is not None, "the mixture shows its weights"
        if found := self.alarm.look(weights.mean(0).view(4, -1)):
            names = ", ".join(f"{gates.KINDS[kind]} {number}" for kind, number in found)
            mend = "raise `balance`" if self.bias is None else "use fewer experts or `balancing: loss`"
            log.warning("experts collapsed: for two epochs next to none of their kind's posts reach %s; %s", names, mend)

    def _own(self, z: Tensor, y: Tensor, text: Tensor, image: Tensor, strength_now: float) -> Tensor:
        """Every expert on x and on all swaps of the sides it treats: z (2, 2, B, E, C)."""
        ce = cross_entropy(z.movedim(-2, 0), y)  # (E, 2, 2, B)
        m_t, m_v = self.treats[:, :, None]  # (E, 1) each
        weights = [torch.ones_like(text).expand(len(m_t), -1), strength_now * m_v * image, strength_now * m_t * text, strength_now * m_t * m_v * text * image]
        weight = torch.stack(weights, 1).view_as(ce)
        return ((ce * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))).mean()

    def _within_z(self, h: Any, batch: Batch) -> Tensor:
        """z-loss of the choice among experts of a kind, of states without dropout."""
        return self._squared(self.states(batch, None))

    def _squared(self, h: Tensor) -> Tensor:
        """Mean over kinds and states (..., H) of the squared logsumexp of the choice."""
        assert self.within is not None, "one expert of a kind needs no choice"
        z: Tensor = self.within(h).unflatten(-1, (4, -1)).logsumexp(-1)
        return z.square().mean()

    def _router_loss(self, logits: Tensor, z: Tensor, y: Tensor, found: Found) -> Tensor:
        """Expected inverse-probability-weighted 0/1 cost of the experts on original posts, what they leave of the direct effects, load and z."""
        wrong = (z.argmax(-1) != y[:, None]).float().unflatten(1, (4, -1)).mean(-1)  # (B, 4)
        p = (self.evidence.log_prior + to_scores(found.nde_tv)).softmax(-1).gather(1, y[:, None])
        weight = (1 / p).clamp(max=self.settings.ipw_clip)
        left = strength(found.nde_t)[:, None] * (1 - self.treats.new_tensor(gates.TREATS_TEXT))
        left = left + strength(found.nde_v)[:, None] * (1 - self.treats.new_tensor(gates.TREATS_IMAGE))
        cost = weight / weight.mean() * wrong + self.settings.residual * left
        load = route(logits, 1)
        return (logits.softmax(-1) * cost).sum(1).mean() + self.settings.balance * load_balance(load) + self.settings.z * z_loss(load)

    def answered(self, inputs: Inputs, log_gates: Tensor) -> tuple[Tensor, Tensor]:
        """S (B, C) with only the chosen experts computed, and the weights of all (B, E)."""
        h = self.encoder(inputs.t, inputs.v, k=inputs.k)
        routing, weights = self.routing(log_gates, h)
        return self.experts.sparse(h, routing) if self.settings.top_k else (weights[..., None] * self.experts(h)).sum(-2), weights

    def answer(self, inputs: Inputs) -> Answer:
        """S, and beside it TE, effects, gates and weights."""
        found = self.evidence_on(inputs)
        log_gates = self.log_gates(inputs.t, inputs.v, found, inputs.sources, inputs.k)
        s, weights = self.answered(inputs, log_gates)
        te = effect(self.total(s, log_gates.exp(), found), self.evidence.log_prior)
        if self.settings.subtract:
            q_t, q_v, _ = gates.switches(log_gates.exp())
            s = s - self.settings.subtract * (q_t[:, None] * to_scores(found.nde_t) + q_v[:, None] * to_scores(found.nde_v))
        return Answer(p=s.softmax(-1), te=te, nde_t=found.nde_t, nde_v=found.nde_v, nde_tv=found.nde_tv, gates=log_gates.exp(), experts=weights)

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """S."""
        return self.answer(inputs).p.clamp_min(1e-30).log()
