"""Texts -> token codes -> sparse presence of tokens and of pairs of neighbours (bigrams).

Tokens are kept as numbers, not objects: 25,000 posts of a thousand tokens fit in memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalroute.counterfactual.tokens import tokenize

PLACEHOLDER = "<num>"
"""Stands for a number that the publisher took out; "has number" asks for those that are written."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """n texts as T codes into W keys."""

    keys: list[str]
    kinds: list[str]
    """kind of each key"""
    codes: NDArray[np.int32]
    """(T,)"""
    rows: NDArray[np.int32]
    """(T,) text that each code belongs to, ascending"""
    texts: int
    """n"""


def encode(texts: Sequence[str]) -> Encoded:
    """Token codes of each text, keys numbered in order of appearance."""
    known: dict[str, int] = {}
    kinds: list[str] = []
    parts = []
    for text in texts:
        part = []
        for token in tokenize(text):
            code = known.setdefault(token.key, len(known))
            if code == len(kinds):
                kinds.append(token.kind)
            part.append(code)
        parts.append(np.array(part, dtype=np.int32))
    sizes = [len(part) for part in parts]
    codes = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
    return Encoded(list(known), kinds, codes, np.repeat(np.arange(len(parts), dtype=np.int32), sizes), len(parts))


def counts(rows: NDArray[Any], columns: NDArray[Any], shape: tuple[int, int]) -> Any:
    """(n, W) CSR matrix of how often each (row, column) comes."""
    from scipy.sparse import coo_matrix

    return coo_matrix((np.ones(len(rows), dtype=np.float64), (rows, columns)), shape=shape).tocsr()


def binary(matrix: Any) -> Any:
    """The same matrix with every stored value 1."""
    matrix = matrix.copy()
    matrix.data[:] = 1.0
    return matrix


def tokens(encoded: Encoded) -> Any:
    """(n, W) CSR counts of the keys."""
    return counts(encoded.rows, encoded.codes, (encoded.texts, len(encoded.keys)))


def bigrams(encoded: Encoded, kept: NDArray[np.bool_]) -> tuple[NDArray[np.int32], Any]:
    """Pairs of neighbouring tokens within a text.

    Args:
        encoded: the texts.
        kept: (W,) keys that a pair may consist of.

    Returns:
        (P, 2) codes of each pair, and (n, P) CSR counts.
    """
    first, second = encoded.codes[:-1].astype(np.int64), encoded.codes[1:].astype(np.int64)
    inside = (encoded.rows[:-1] == encoded.rows[1:]) & kept[first] & kept[second]
    pairs, column = np.unique(first[inside] * len(encoded.keys) + second[inside], return_inverse=True)
    codes = np.stack([pairs // max(1, len(encoded.keys)), pairs % max(1, len(encoded.keys))], axis=1).astype(np.int32)
    return codes, counts(encoded.rows[:-1][inside], column, (encoded.texts, len(pairs)))
