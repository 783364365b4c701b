"""Product of experts (Clark et al. 2019, "bias product"; Mahabadi et al. 2020): the network learns only what the bias model leaves open.

    L = CE(log p + sum_m log p_m) + sum_m CE(z_m)                     m the sides of `bias`; the first term does not train the branches

p = softmax z of the joint network, p_m = softmax z_m of the branch that sees side m alone; the answer is p.
"""

from __future__ import annotations

from torch import Generator, Tensor

from causalroute.methods.base import Posts
from causalroute.methods.branches import Biased, Settings
from causalroute.model.losses import cross_entropy

__all__ = ["EDITOR", "SEARCH", "Method", "Settings"]

EDITOR = None
SEARCH = {"bias": ("text", "image", "both")}


class Method(Biased):
    """See the module."""

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """The product's loss and those of the branches."""
        inputs, y = posts.inputs(rows), posts.labels[rows]
        z, single = self.scores(inputs, generator), self.biased(inputs, generator)
        product = z.log_softmax(-1) + single.detach().log_softmax(-1).sum(0)
        parts = {"product": cross_entropy(product, y).mean(), "bias": cross_entropy(single, y).mean(1).sum()}
        return {"loss": parts["product"] + parts["bias"], **parts}
