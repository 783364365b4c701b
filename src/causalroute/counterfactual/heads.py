"""One hidden layer on cached features: the vanilla classifier that editors ask. It learns whatever helps, shortcuts included; products are not needed.

z = W2 gelu(W1 x + b1) + b2
"""

from __future__ import annotations

from collections.abc import Callable

import torch

HIDDEN, BATCH, RATE = 64, 128, 3e-3
"""Units, posts per step, AdamW learning rate."""
Batch = Callable[[], tuple[torch.Tensor, torch.Tensor]]


def standardised(features: torch.Tensor, scale: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """(N, D) less the mean, over the deviation, (D,) each."""
    return (features.float() - scale[0]) / scale[1]


def scale_of(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of (N, D), (D,) each."""
    return features.mean(0), features.std(0) + 1e-6


def blank(width: int, classes: int) -> torch.nn.Module:
    """A frozen head (B, width) -> (B, classes) whose weights are yet to come."""
    return torch.nn.Sequential(torch.nn.Linear(width, HIDDEN), torch.nn.GELU(), torch.nn.Linear(HIDDEN, classes)).requires_grad_(False)


def fit(width: int, classes: int, batch: Batch, steps: int, decay: float, source: torch.Generator) -> torch.nn.Module:
    """A frozen head (B, width) -> (B, classes).

    Args:
        width: of its inputs.
        classes: of its outputs.
        batch: draws BATCH inputs and labels.
        steps: of AdamW.
        decay: of AdamW.
        source: of the weights, drawn first; `batch` may go on with it.
    """
    head = blank(width, classes)
    for weight in head.requires_grad_(True).parameters():
        bound = 1 / (weight.shape[-1] ** 0.5)
        torch.nn.init.uniform_(weight, -bound, bound, generator=source)
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=decay)
    for _ in range(steps):
        inputs, labels = batch()
        loss = torch.nn.functional.cross_entropy(head(inputs), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return head.requires_grad_(False)
