"""The mediation gate: which of {keep, text, image, both} a post needs.

    rule: treat modality m when |NDE_m| > threshold          a context that alone predicts the label acts directly, so it is a shortcut;
                                                             a core cue acts only through the other side (the mediator) and has NDE ~ 0
    soft: u_m = sigmoid((|NDE_m| - threshold) / temperature),  g = (1-u_T)(1-u_V), u_T (1-u_V), (1-u_T) u_V, u_T u_V

Letters: B batch, C classes.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from causalroute.model.layers import linear

KINDS = ("keep", "text", "image", "both")
TREATS_TEXT = (0.0, 1.0, 0.0, 1.0)
TREATS_IMAGE = (0.0, 0.0, 1.0, 1.0)


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

    def __init__(self, text_dim: int, image_dim: int, classes: int, width: int, generator: Generator) -> None:
        super().__init__()
        self.text = linear(text_dim, width, generator)
        self.image = linear(image_dim, width, generator)
        self.inner = linear(4 * width + 2 * classes + 3, width, generator)
        self.outer = linear(width, len(KINDS), generator)

    def forward(self, t: Tensor, v: Tensor, nde_t: Tensor, nde_v: Tensor, evidence: Tensor) -> Tensor:
        """t (B, Dt), v (B, Dv), effects (B, C) each, evidence (B, 3): both strengths and the entropy of p(y | t_s, v_s) -> logits (B, 4)."""
        a, b = torch.tanh(self.text(t)), torch.tanh(self.image(v))
        joint = torch.cat([a, b, a * b, (a - b).abs(), nde_t, nde_v, evidence], 1)
        return self.outer(functional.gelu(self.inner(joint)))
