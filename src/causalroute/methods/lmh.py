"""Learned-mixin with an entropy term (Clark et al. 2019): the network decides per post how far to trust the bias model.

    b_m = softplus(w_m . h + c_m) log p_m
    L   = CE(log p + sum_m b_m) + penalty H(softmax(sum_m b_m)) + sum_m CE(z_m)      m the sides of `bias`; only the last term trains the branches

h hidden layer of the joint network, p = softmax z its answer, p_m = softmax z_m of the branch that sees side m alone, H entropy.
"""

from __future__ import annotations

from torch import Generator, Tensor
from torch.nn import functional

from causalroute.config import section
from causalroute.methods import branches
from causalroute.methods.base import Posts, Shape
from causalroute.model.layers import linear
from causalroute.model.losses import cross_entropy

EDITOR = None
SEARCH = {"penalty": (0.0, 0.03, 0.1, 0.36)}


@section
class Settings(branches.Settings):
    """Settings of the learned mixin."""

    penalty: float = 0.03
    """weight of the entropy: 0.03 in the authors' code for MNLI, 0.36 for VQA-CP, which over-corrects where two sides are biased"""


class Method(branches.Biased):
    """See the module."""

    training_only = ("bias.", "trust.")

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.trust = linear(shape.hidden, len(self.bias), generator)

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """The mixture's loss, the entropy of its bias part, and the losses of the branches."""
        inputs, y = posts.inputs(rows), posts.labels[rows]
        h, single = self.network.encoder(inputs.t, inputs.v, generator, inputs.k), self.biased(inputs, generator)
        factor = functional.softplus(self.trust(h)).T[..., None]  # (S, B, 1)
        bias = (factor * single.detach().log_softmax(-1)).sum(0)
        log_b = bias.log_softmax(-1)  # where a probability underflows, its entropy has a gradient in this form alone
        parts = {
            "mixture": cross_entropy(self.network.head(h).log_softmax(-1) + bias, y).mean(),
            "entropy": -(log_b.exp() * log_b).sum(-1).mean(),
            "bias": cross_entropy(single, y).mean(1).sum(),
        }
        return {"loss": parts["mixture"] + self.settings.penalty * parts["entropy"] + parts["bias"], **parts}
