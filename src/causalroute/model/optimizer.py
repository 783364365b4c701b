"""AdamW on one flat vector (Loshchilov and Hutter 2019), a handful of tensor operations per step.

    m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2,   p <- (1 - lr wd) p - lr (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps)

The heads trained here are small: torch.optim would spend more on bookkeeping than on arithmetic, and starting it loads the compiler (over a second
per process). Its whole state is three tensors, which makes a checkpoint simple.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

BETAS, EPS = (0.9, 0.999), 1e-8


def cosine(lr: float, done: float) -> float:
    """Learning rate after the share `done` of all steps: lr (1 + cos(pi done)) / 2."""
    return lr * 0.5 * (1 + math.cos(math.pi * done))


class AdamW:
    """Updates leaf tensors of one type in place; their storage becomes part of one vector.

    A tensor that the loss does not reach has gradient 0 (and still decays).
    """

    def __init__(self, parameters: Iterable[Tensor], weight_decay: float) -> None:
        parameters = list(parameters)
        self.weight_decay = weight_decay
        self.flat = torch.cat([p.detach().flatten() for p in parameters])
        self.grad, self.m, self.v = (torch.zeros_like(self.flat) for _ in range(3))
        self.steps = 0
        start = 0
        for p in parameters:
            end = start + p.numel()
            p.data, p.grad = self.flat[start:end].view_as(p), self.grad[start:end].view_as(p)
            start = end

    @torch.no_grad()
    def step(self, loss: Tensor, lr: float) -> None:
        """One step down the gradient of `loss`."""
        self.grad.zero_()
        with torch.enable_grad():
            loss.backward()
        self.steps += 1
        self.m.lerp_(self.grad, 1 - BETAS[0])
        self.v.mul_(BETAS[1]).addcmul_(self.grad, self.grad, value=1 - BETAS[1])
        scale = self.v.sqrt().div_(math.sqrt(1 - BETAS[1] ** self.steps)).add_(EPS)
        self.flat.mul_(1 - lr * self.weight_decay).addcdiv_(self.m, scale, value=-lr / (1 - BETAS[0] ** self.steps))

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on, beside the parameters."""
        return {"m": self.m, "v": self.v, "steps": torch.tensor(self.steps)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Takes a state back."""
        self.m.copy_(state["m"])
        self.v.copy_(state["v"])
        self.steps = int(state["steps"])
