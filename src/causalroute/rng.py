"""Named random substreams of one seed: the same (seed, names) gives the same numbers, whatever else was drawn before."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def substream(seed: int, *names: object) -> int:
    """A 63-bit seed for the substream called `names` of `seed`; independent of Python's hash randomisation."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> np.random.Generator:
    """A NumPy generator for the substream."""
    return np.random.default_rng(substream(seed, *names))


def torch_generator(seed: int, *names: object) -> torch.Generator:
    """A CPU torch generator for the substream."""
    import torch

    return torch.Generator().manual_seed(substream(seed, *names))
