"""What methods share that route experts by mediation evidence: a part of them, not a method.

    NDE_m = contrast(log p(y | m_s)) - contrast(log p(y))            cross-fitted context heads, m in {T, V}
    g     = gate(evidence) over {keep, text, image, both}            w from g through causalroute.routing
    u     = 1, or with `reweight` p(y) / p(y | contexts that are not treated)

Evidence and gate read cached features, whatever the experts are made of.
Letters: B batch, E experts, C classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from causalroute.methods.base import Check, Inputs, Method, Posts, Shape
from causalroute.model import consistency, gates
from causalroute.model.effects import to_scores
from causalroute.model.evidence import Evidence, Fit, Found, Views
from causalroute.model.experts import dense_weights
from causalroute.routing import Routing, route


class Mediated(Method):
    """A method with evidence, a gate and `per_kind` experts of each of its kinds; a subclass calls `mediate` and says what `within` and `bias` are."""

    contexts = True
    sides = ("text", "image")
    bias: Tensor | None

    def __init__(self, settings: Any, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.within: nn.Linear | None = None
        self.found: Found | None = None

    def mediate(self, form: str, generator: Generator) -> None:
        """Makes the heads and the gate; apart from `__init__`, so that a subclass decides when its random numbers are drawn."""
        shape, set_ = self.shape, self.settings
        fit = Fit(set_.folds, set_.context_hidden, set_.context_steps, set_.clip, set_.ipw_clip, form, shape.hidden)
        sizes = (shape.text_dim, shape.image_dim, shape.classes)
        self.evidence = Evidence(*sizes, fit, set_.router == "mediated", generator)
        self.gate = gates.Gate(set_.router, sizes, set_.threshold, set_.temperature, generator, shape.joint_dim)
        kinds = torch.arange(4).repeat_interleave(set_.per_kind)
        self.kinds = nn.Buffer(kinds, persistent=False)  # (E,)
        self.treats = nn.Buffer(torch.tensor([gates.TREATS_TEXT, gates.TREATS_IMAGE])[:, kinds], persistent=False)  # (2, E)

    def prepare(self, posts: Posts, generator: Generator) -> None:
        """Fits the heads; the evidence on train posts comes from heads that have not seen them."""
        seen = {name: posts.views[name] for name in ("t", "v", "t_s", "v_s", "t_swap", "v_swap")}
        joint = tuple(posts.views[name] for name in ("k", "k_swap_t", "k_swap_v")) if self.shape.joint_dim else None
        views = Views(**seen, y=posts.labels, text_ok=posts.text_ok, image_ok=posts.image_ok, joint=joint)
        self.found = self._looked_at(self.evidence.learn(views, posts.train, generator))

    def _looked_at(self, found: Found) -> Found:
        """What of the evidence a subclass looks at."""
        return found

    def _known(self, rows: Tensor) -> Found:
        assert self.found is not None, "prepare comes first"
        return self.found.rows(rows)

    def log_gates(self, t: Tensor, v: Tensor, found: Found, sources: list[str] | None, k: Tensor | None = None) -> Tensor:
        """Log-gates (B, 4)."""
        result: Tensor = self.gate(t, v, found, self.evidence.log_prior, sources, k)
        return result

    def routing(self, log_gates: Tensor, h: Tensor) -> tuple[Routing, Tensor]:
        """Spreads the gate of a kind over its experts and routes: log-gates (B, 4), trunk (..., B, H) -> routing, weights of all experts (..., B, E)."""
        logits = log_gates
        if self.within is not None:
            logits = log_gates[:, self.kinds] + self.within(h).unflatten(-1, (4, -1)).log_softmax(-1).flatten(-2)
        flat = logits.flatten(0, -2)
        found = route(flat, self.settings.top_k or 1, renormalize=True, selection_bias=self.bias)
        weights = dense_weights(found) if self.settings.top_k else flat.softmax(-1)
        return found, weights.view_as(logits)

    def _importance(self, y: Tensor, left_t: Tensor, left_v: Tensor, found: Found) -> Tensor:
        """u of the module docstring, (B,), from how far each side is left untreated though its context is known (B,)."""
        if not self.settings.reweight:
            return torch.ones_like(left_t)
        left = left_t[:, None] * to_scores(found.nde_t) + left_v[:, None] * to_scores(found.nde_v)
        return consistency.inverse_probability(self.evidence.log_prior, left, y, self.settings.ipw_clip)

    def evidence_on(self, inputs: Inputs) -> Found:
        """Evidence on posts outside the train split."""
        if inputs.t_s is None or inputs.v_s is None:
            raise ValueError("the mixture needs the context views t_s and v_s")
        return self._looked_at(self.evidence(inputs.t, inputs.v, inputs.t_s, inputs.v_s))

    def checks(self, posts: Posts) -> list[Check]:
        """A swap counts as far as the gate accepts it: where a side is not treated, its context belongs to the core."""
        found = super().checks(posts)
        factual = found[0].inputs
        q_t, q_v, q_tv = gates.switches(self.gate.accepted(self.evidence_on(factual), factual.sources))
        weight = {"factual": torch.ones_like(q_t), "text": q_t, "image": q_v, "both": q_tv}
        gated = [replace(check, weights=check.weights * weight[check.name]) for check in found]
        return [check for check in gated if check.name == "factual" or check.weights.sum() > 0]
