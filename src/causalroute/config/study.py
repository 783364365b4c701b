"""Sections of the studies around the result table: the search of settings beforehand, the ablation afterwards."""

from __future__ import annotations

from causalroute.parsing import section


@section
class Search:
    """Choice of settings on validation posts, the same small budget for every method (data sets with `search: true`)."""

    seeds: int = 2
    """training seeds of each candidate"""
    first_seed: int = 1000
    """the first of them; none may be a seed of the result table"""
    epochs: int = 0
    """passes over the train split of each candidate; 0: as in `train`"""

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.epochs < 0:
            raise ValueError("seeds must be at least 1, epochs at least 0")


@section
class Ablation:
    """Variants of a method beside the method itself (`snakemake ablation`)."""

    seeds: int = 0
    """training seeds of the variants and their parents, from 0 on; 0: as in `replicates`"""

    def __post_init__(self) -> None:
        if self.seeds < 0:
            raise ValueError("seeds must be at least 0")
