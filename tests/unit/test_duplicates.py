"""Duplicates against naive all-pairs loops."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from causalroute.data.duplicates import (
    IMAGE_BITS,
    LINKS,
    MIN_WORDS,
    STRUCTURE_BITS,
    TEXT_SIMILARITY,
    components,
    exact_pairs,
    near_images,
    near_texts,
    normalise,
)

WORDS = ["sun", "rain", "tram", "cake", "lamp", "door", "fish", "moon", "glass", "paper", "stone", "river", "cloud", "chair", "bread", "piano"]


def test_normalise() -> None:
    assert normalise("Good  MORNING\n http://t.co/abc ") == normalise("good morning http://t.co/xyz") == "good morning"
    assert normalise("ﬁne #Day") == "fine #day"
    assert normalise("http://t.co/a") == normalise("www.b.org") == "<address>"
    assert normalise("  ") == ""


@given(st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=20))
def test_exact_pairs_and_components(keys: list[str]) -> None:
    groups = components(len(keys), exact_pairs(keys)).tolist()
    for a, b in itertools.combinations(range(len(keys)), 2):
        assert (groups[a] == groups[b]) == (keys[a] == keys[b] != "")


@given(st.integers(1, 30), st.data())
def test_components_against_repeated_merging(count: int, data: st.DataObject) -> None:
    pairs = data.draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=30))
    naive = list(range(count))
    for _ in range(count):
        for a, b in pairs:
            naive[a] = naive[b] = min(naive[a], naive[b])
    assert components(count, pairs).tolist() == naive


def naive_texts(texts: list[str]) -> set[tuple[int, int]]:
    grams = [set(itertools.pairwise(text.split())) for text in texts]
    long = [index for index, text in enumerate(texts) if len(grams[index]) >= MIN_WORDS - 1 and texts.index(text) == index]
    return {(a, b) for a, b in itertools.combinations(long, 2) if len(grams[a] & grams[b]) / len(grams[a] | grams[b]) >= TEXT_SIMILARITY}


def test_near_texts_against_all_pairs() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 14)) for _ in range(60)]
    for index in range(0, 60, 2):  # one word of each second text changed at its end, or two in its middle
        words = texts[index].split()
        texts.append(" ".join([*words[:-1], "new"]))
        texts.append(" ".join([*words[:5], "new", "one", *words[7:]]))
    texts += [*texts[:3], "short text", "short text too"]
    truth, found = naive_texts(texts), set(near_texts(texts))
    assert found <= truth
    assert len(truth) >= 30
    assert len(found) >= 0.97 * len(truth)
    assert near_texts(texts) == near_texts(texts)


def test_texts_of_one_template_stay_one_group_with_few_pairs() -> None:
    texts = [f"all of these twelve words are the same in every text but {number}" for number in range(150)]
    pairs = near_texts(texts)
    assert len(pairs) <= LINKS * len(texts)
    assert set(components(len(texts), pairs).tolist()) == {0}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=15), st.data())
def test_near_images_against_all_pairs(hashes: list[int], data: st.DataObject) -> None:
    flips = st.sets(st.integers(0, 63), max_size=6)
    hashes = hashes + [value ^ sum(1 << bit for bit in data.draw(flips)) for value in hashes]
    rich = [index for index, value in enumerate(hashes) if STRUCTURE_BITS <= value.bit_count() <= 64 - STRUCTURE_BITS]
    groups = components(len(hashes), near_images(hashes)).tolist()
    naive = [(a, b) for a, b in itertools.combinations(rich, 2) if (hashes[a] ^ hashes[b]).bit_count() <= IMAGE_BITS]
    assert groups == components(len(hashes), naive).tolist()


def test_pictures_without_structure_are_no_twins() -> None:
    assert near_images([1 << 63, 1 << 63, None, 0]) == []
