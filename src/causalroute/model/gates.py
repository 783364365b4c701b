"""The mediation gate: which of {keep, text, image, both} a post needs.

    rule      treat modality m when |NDE_m| > threshold      a context that alone predicts the label acts directly, so it is a shortcut;
                                                             a core cue acts only through the other side (the mediator) and has NDE ~ 0
    mediated  ... when |NDE_m| - max(0, -c_m) > threshold    a core cue that is biased as well acts both ways: exchanging it would turn the label
    soft      u_m = sigmoid((|NDE_m| - threshold) / temperature),  g = (1-u_T)(1-u_V), u_T (1-u_V), (1-u_T) u_V, u_T u_V

Controls: always (both sides of every post), constant (all four alike), random (an untrained router), oracle (the true source); learned and ce are trained by
the method that owns the gate.

A router reads the joint feature k of the pair as well, where the backbone has one.

Letters: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from causalroute.model.effects import strength, to_scores
from causalroute.model.evidence import Found
from causalroute.model.layers import linear

KINDS = ("keep", "text", "image", "both")
TREATS_TEXT = (0.0, 1.0, 0.0, 1.0)
TREATS_IMAGE = (0.0, 0.0, 1.0, 1.0)
OF_SOURCE = {"none": 0, "core_image": 1, "core_text": 2, "both": 3}
"""Treatment by kind of planted source: a side is treated where its cue is a shortcut."""
WIDTH = 32
"""Units of a router."""


def rule(text: Tensor, image: Tensor, threshold: float, temperature: float) -> Tensor:
    """Gates (B, 4) from the strengths |NDE_T|, |NDE_V| (B,); temperature 0 is the hard rule."""
    if temperature > 0:
        treat = [torch.sigmoid((s - threshold) / temperature) for s in (text, image)]
    else:
        treat = [(s > threshold).to(s.dtype) for s in (text, image)]
    t, v = treat
    return torch.stack([(1 - t) * (1 - v), t * (1 - v), (1 - t) * v, t * v], 1)


def switches(gates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q_T = g_T + g_TV, q_V = g_V + g_TV, q_TV = g_TV, each (B,), from gates (B, 4)."""
    return gates[:, 1] + gates[:, 3], gates[:, 2] + gates[:, 3], gates[:, 3]


class Router(nn.Module):
    """Learned gate on the post and on its (gradient-free) direct effects."""

    def __init__(self, text_dim: int, image_dim: int, classes: int, width: int, generator: Generator, joint_dim: int = 0) -> None:
        super().__init__()
        self.text = linear(text_dim, width, generator)
        self.image = linear(image_dim, width, generator)
        self.joint = linear(joint_dim, width, generator) if joint_dim > 0 else None
        self.inner = linear((4 + (joint_dim > 0)) * width + 2 * classes + 3, width, generator)
        self.outer = linear(width, len(KINDS), generator)

    def forward(self, t: Tensor, v: Tensor, nde_t: Tensor, nde_v: Tensor, evidence: Tensor, k: Tensor | None = None) -> Tensor:
        """t (B, Dt), v (B, Dv), effects (B, C) each, evidence (B, 3): both strengths and the entropy of p(y | t_s, v_s), k (B, Dk) -> logits (B, 4)."""
        a, b = torch.tanh(self.text(t)), torch.tanh(self.image(v))
        seen = [a, b, a * b, (a - b).abs(), nde_t, nde_v, evidence]
        if self.joint is not None:
            if k is None:
                raise ValueError("this router reads joint features, and none were given (`k`)")
            seen.append(torch.tanh(self.joint(k)))
        return self.outer(functional.gelu(self.inner(torch.cat(seen, 1))))


class Gate(nn.Module):
    """A router of one of the kinds of the module docstring.

    Args:
        kind: see there.
        shape: Dt, Dv and C.
        threshold: of the rule, log-odds.
        temperature: of the rule, log-odds; 0 is hard.
        generator: first weights, where there are any.
        joint_dim: Dk; 0 where the backbone has no joint features.
    """

    def __init__(self, kind: str, shape: tuple[int, int, int], threshold: float, temperature: float, generator: Generator, joint_dim: int = 0) -> None:
        super().__init__()
        self.kind, self.threshold, self.temperature = kind, threshold, temperature
        self.router = Router(*shape, WIDTH, generator, joint_dim) if kind in ("learned", "ce", "random") else None

    @property
    def learns(self) -> bool:
        """Whether gradient steps change it."""
        return self.kind in ("learned", "ce")

    def rule(self, found: Found) -> Tensor:
        """Gates (B, 4) of the rule, mediated or not."""
        sides = [strength(found.nde_t), strength(found.nde_v)]
        if self.kind == "mediated":
            sides = [side - (-keeps).clamp(min=0) for side, keeps in zip(sides, (found.keeps_t, found.keeps_v), strict=True)]
        return rule(sides[0], sides[1], self.threshold, self.temperature)

    def logits(self, t: Tensor, v: Tensor, found: Found, log_prior: Tensor, k: Tensor | None = None) -> Tensor:
        """Of the router (B, 4)."""
        assert self.router is not None, "a gate without weights has no logits"
        p = (log_prior + to_scores(found.nde_tv)).softmax(-1)
        entropy = -(p * p.clamp_min(1e-9).log()).sum(-1)
        evidence = torch.stack([strength(found.nde_t), strength(found.nde_v), entropy], 1)
        return self.router(t, v, found.nde_t, found.nde_v, evidence, k)

    def forward(self, t: Tensor, v: Tensor, found: Found, log_prior: Tensor, sources: Sequence[str] | None, k: Tensor | None = None) -> Tensor:
        """Log-gates (B, 4)."""
        if self.learns:
            return self.logits(t, v, found, log_prior, k).log_softmax(-1)
        return self._fixed(t, v, found, log_prior, sources, k).log()

    def accepted(self, found: Found, sources: Sequence[str] | None) -> Tensor:
        """Gates (B, 4) by which selection accepts swaps: the rule's, unless this gate has a firm opinion of its own."""
        if self.kind in ("always", "oracle"):
            return self._fixed(found.nde_t, found.nde_v, found, found.nde_t, sources)
        return self.rule(found)

    def _fixed(self, t: Tensor, v: Tensor, found: Found, log_prior: Tensor, sources: Sequence[str] | None, k: Tensor | None = None) -> Tensor:
        if self.kind == "random":
            with torch.no_grad():
                chosen = self.logits(t, v, found, log_prior, k)
            return functional.one_hot(chosen.argmax(-1), len(KINDS)).to(t.dtype)
        if self.kind == "constant":
            return t.new_full((len(t), len(KINDS)), 1 / len(KINDS))
        if self.kind == "always":
            return functional.one_hot(torch.full((len(t),), KINDS.index("both")), len(KINDS)).to(t.dtype)
        if self.kind == "oracle":
            if sources is None:
                raise ValueError("the oracle gate needs posts whose source is known (group:source)")
            return functional.one_hot(torch.tensor([OF_SOURCE[name.split()[-1]] for name in sources]), len(KINDS)).to(t.dtype)
        return self.rule(found)
