"""Core masks found by gradient x input: which pixels does the backbone's answer to *this* text hang on?

    s(p) = sum over channels of |x_p d(u . h(x)) / d x_p|

h(x) is the image feature, u the direction of `answers.py`: the post's own core text in the shared space of a dual encoder, the gradient of the
interaction of a fusion head for an encoder pair. No truth and no label of a test split is used.
"""

from __future__ import annotations

import torch

from causalroute.counterfactual.image.answers import Answers, Encode
from causalroute.counterfactual.image.maps import Heat


def heat_of(answers: Answers) -> Heat:
    """s(p) of batches: (B, H, W)."""

    def heat(pixels: torch.Tensor, rows: list[int]) -> torch.Tensor:
        return gradient_times_input(answers.encode, pixels, answers.directions[rows])

    return heat


def gradient_times_input(encode: Encode, pixels: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """s(p) of the module equation: (B, H, W)."""
    pixels = pixels.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((encode(pixels) * directions).sum(), pixels)
    return (gradient * pixels.detach()).abs().sum(1)
