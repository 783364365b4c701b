"""A fitted logistic regression of scikit-learn as one weight row per class: a shared part of several methods, not a method.

two classes:  w = +-coef / 2,  b = +-intercept / 2        the library keeps the second class's row alone
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ABSENT = -30.0
"""bias of a class that no item of the fit had"""


def per_class(fit: Any, classes: int) -> tuple[Tensor, Tensor]:
    """Weights (C, D) and biases (C,) whose softmax is the regression's probability."""
    weight, bias = torch.zeros(classes, fit.coef_.shape[1]), torch.full((classes,), ABSENT)
    present = torch.from_numpy(fit.classes_)
    coefficients, intercepts = torch.from_numpy(fit.coef_).float(), torch.from_numpy(fit.intercept_).float()
    if len(present) == 2:
        coefficients, intercepts = torch.cat([-coefficients, coefficients]) / 2, torch.cat([-intercepts, intercepts]) / 2
    weight[present], bias[present] = coefficients, intercepts
    return weight, bias
