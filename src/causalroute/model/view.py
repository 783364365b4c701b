"""Features of posts that need not lie in memory: what is indexed like a tensor makes the rows that are asked for."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class View(Protocol):
    """(N, ..., D) features of N posts: a tensor, or what reads a file (`stored.reading.Standardised`)."""

    @property
    def shape(self) -> torch.Size:
        """(N, ..., D)."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def __getitem__(self, index: Any, /) -> Tensor:
        """Posts, and an index of each further axis behind them; [:] is all of it."""
        ...


class Part:
    """Some posts of a view, and of its further axes one place each: (M, D).

    Args:
        view: (N, ..., D).
        rows: (M,) numbers of the posts.
        further: a number for each axis between the first and the last.
    """

    def __init__(self, view: View, rows: Tensor, *further: int) -> None:
        self.view, self.rows, self.further = view, rows, further

    @property
    def shape(self) -> torch.Size:
        """(M, D)."""
        return torch.Size((len(self.rows), self.view.shape[-1]))

    def __len__(self) -> int:
        """M."""
        return len(self.rows)

    def __getitem__(self, index: Any, /) -> Tensor:
        """The posts `index`, counted within the part."""
        return self.view[(self.rows[index], *self.further)]
