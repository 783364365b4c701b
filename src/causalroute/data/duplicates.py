"""Exact and near duplicates, and the groups they form.

Texts: exact when equal after Unicode NFKC, case folding, removal of web addresses and of repeated space; near when the Jaccard
similarity of their sets of word pairs is at least `TEXT_SIMILARITY` (candidates by MinHash LSH: Broder 1997; checked exactly).
Images: exact when the bytes agree; near when their perceptual hashes differ in at most `IMAGE_BITS` of 64 bits.
"""

from __future__ import annotations

import heapq
import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np

TEXT_SIMILARITY = 0.8
MIN_WORDS = 6  # shorter texts share their word pairs by chance
PERMUTATIONS = 64
LINKS = 64  # candidates a text is compared with, first ones first: texts from one template would else make N^2 pairs
IMAGE_BITS = 4
STRUCTURE_BITS = 12  # a picture without structure has a hash of almost only zeros or ones, which says nothing
BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))  # IMAGE_BITS + 1 bands: two hashes that close agree in one of them
URL = re.compile(r"(?:https?://|www\.)\S+")
Pair = tuple[int, int]


def normalise(text: str) -> str:
    """The text by which exact duplicates are told; posts of nothing but web addresses are equal to each other."""
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return " ".join(URL.sub(" ", " ".join(words)).split()) or ("<address>" if words else "")


def exact_pairs(keys: Sequence[Hashable]) -> Iterator[Pair]:
    """Pairs (first position, later position) of equal keys; null and empty keys are equal to nothing."""
    first: dict[Hashable, int] = {}
    for position, key in enumerate(keys):
        if key and first.setdefault(key, position) != position:
            yield first[key], position


def near_texts(texts: Sequence[str], similarity: float = TEXT_SIMILARITY) -> list[Pair]:
    """Pairs of different normalised texts whose word pairs overlap by at least `similarity`, at most `LINKS` per text with earlier ones.

    Args:
        texts: N normalised texts; equal ones are compared once, by their first position.
        similarity: least Jaccard similarity.

    Returns:
        Sorted pairs of positions (smaller first).
    """
    first = {text: position for position, text in reversed(list(enumerate(texts)))}
    shingles = {position: _shingles(text) for text, position in sorted(first.items(), key=lambda item: item[1])}
    shingles = {position: grams for position, grams in shingles.items() if len(grams) >= MIN_WORDS - 1}
    pairs = _candidates(shingles, similarity)
    return sorted(pair for pair in pairs if _jaccard(shingles[pair[0]], shingles[pair[1]]) >= similarity)


def _shingles(text: str) -> frozenset[str]:
    words = text.split()
    return frozenset(f"{a} {b}" for a, b in itertools.pairwise(words))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def _candidates(shingles: dict[int, frozenset[str]], similarity: float) -> set[Pair]:
    from datasketch import MinHash, MinHashLSH

    # a lower threshold for the buckets than for the answer: misses cost more than exact comparisons
    index = MinHashLSH(threshold=max(0.1, similarity - 0.15), num_perm=PERMUTATIONS)
    pairs: set[Pair] = set()
    blank = MinHash(num_perm=PERMUTATIONS, seed=1)
    for position, grams in shingles.items():
        sketch = blank.copy()
        sketch.update_batch([gram.encode() for gram in sorted(grams)])
        pairs.update((other, position) for other in heapq.nsmallest(LINKS, index.query(sketch)))
        index.insert(position, sketch, check_duplication=False)
    return pairs


def near_images(hashes: Sequence[int | None], bits: int = IMAGE_BITS) -> list[Pair]:
    """Pairs of images whose perceptual hashes differ in at most `bits` (<= 4) of 64 bits; equal hashes are compared once.

    Returns:
        Sorted pairs of positions (smaller first); equal hashes are paired with the first position.
    """
    first: dict[int, int] = {}
    pairs: set[Pair] = set()
    for position, value in enumerate(hashes):
        if value is None or not STRUCTURE_BITS <= value.bit_count() <= 64 - STRUCTURE_BITS:
            continue
        if first.setdefault(value, position) != position:
            pairs.add((first[value], position))
    for shift, width in BANDS:
        buckets: dict[int, list[int]] = defaultdict(list)
        for value in first:
            buckets[(value >> shift) & ((1 << width) - 1)].append(value)
        for bucket in buckets.values():
            pairs.update((min(first[a], first[b]), max(first[a], first[b])) for a, b in _close(bucket, bits))
    return sorted(pairs)


def _close(values: list[int], bits: int) -> Iterator[Pair]:
    array = np.array(values, dtype=np.uint64)
    for position in range(len(values) - 1):
        rest = np.unpackbits((array[position + 1 :] ^ array[position]).view(np.uint8).reshape(-1, 8), axis=1)
        for other in np.flatnonzero(rest.sum(axis=1) <= bits):
            yield values[position], values[position + 1 + int(other)]


def components(count: int, pairs: Iterable[Pair]) -> np.ndarray:
    """Connected components of `count` items under `pairs`.

    Returns:
        (N,) int64: the smallest position of each item's component.
    """
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for a, b in pairs:
        first, second = sorted((root(a), root(b)))
        parent[second] = first
    return np.array([root(item) for item in range(count)], dtype=np.int64)
