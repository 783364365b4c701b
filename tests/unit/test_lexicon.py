from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalroute.counterfactual.posts import UNKNOWN, Posts, posts_of
from causalroute.counterfactual.text import lexicon
from causalroute.counterfactual.tokens import masked, render, tokenize
from causalroute.errors import UserError


def make(texts: list[str], labels: list[int], train: list[bool] | None = None) -> Posts:
    flags = np.array([True] * len(texts) if train is None else train)
    return Posts([f"p{i}" for i in range(len(texts))], texts, [tokenize(text) for text in texts], np.array(labels), flags)


def tagged(rho: float, items: int, seed: int = 0) -> Posts:
    """Posts whose hashtag agrees with the label with probability rho; words are independent of it."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, items)
    cue = np.where(random.random(items) < rho, labels, 1 - labels)
    tags = np.array([["#east", "#west"], ["#north", "#south"]])[cue, random.integers(0, 2, items)]
    words = random.choice(["bread", "rain", "bus", "good", "awful", "not", "very", "the"], (items, 4))
    return make([" ".join([*row, tag]) for row, tag in zip(words, tags, strict=True)], labels.tolist())


def test_tokens_of_a_post_as_corpora_write_it() -> None:
    text = "<user> don't wait <num> min or 3.5 h # latebus #OnTime emoji_12 😀😀 https://x.y/z?q ... [MASK] @ bob_1!!"
    found = [(token.key, token.kind) for token in tokenize(text)]
    assert found == [
        ("<user>", "mention"),
        ("don't", "word"),
        ("wait", "word"),
        ("<num>", "number"),
        ("min", "word"),
        ("or", "word"),
        ("3.5", "number"),
        ("h", "word"),
        ("#latebus", "hashtag"),
        ("#ontime", "hashtag"),
        ("emoji_12", "emoji"),
        ("😀😀", "emoji"),
        ("<link>", "url"),
        ("...", "punctuation"),
        ("[mask]", "word"),
        ("<user>", "mention"),
        ("!!", "punctuation"),
    ]


@given(st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_tokens_cover_everything_but_white_space(text: str) -> None:
    tokens = tokenize(text)
    covered = set()
    for before, after in pairwise(tokens):
        assert before.end <= after.start
    for token in tokens:
        assert token.start < token.end
        covered |= set(range(token.start, token.end))
    assert all(character.isspace() for i, character in enumerate(text) if i not in covered)
    assert render(text, tokens, [text[token.start : token.end] for token in tokens]) == text


@given(st.lists(st.sampled_from(["good", "#day", "3", "...", "<user>", "emoji_4"]), min_size=1, max_size=12), st.integers(0, 2**12 - 1))
def test_masking_keeps_order_and_number_of_tokens(words: list[str], bits: int) -> None:
    text = " ".join(words)
    tokens = tokenize(text)
    hide = np.array([bool(bits >> i & 1) for i in range(len(tokens))])
    again = tokenize(masked(text, tokens, hide, "[MASK]"))
    assert len(again) == len(tokens)
    assert [token.key for token in again] == ["[mask]" if hidden else token.key for token, hidden in zip(tokens, hide, strict=True)]


def test_z_is_the_equation() -> None:
    posts = make(["a b", "a c", "a b", "c c d"], [0, 0, 1, 1])
    scores = lexicon.log_odds(lexicon.keys_per_post(posts), posts)
    present = [{"a", "b"}, {"a", "c"}, {"a", "b"}, {"c", "d"}]
    total = sum(len(names) for names in present)
    for word in "abcd":
        prior = lexicon.PRIOR * sum(word in names for names in present) / total
        y, rest = (sum(word in names for names in part) + prior for part in (present[:2], present[2:]))
        n, m = (sum(len(names) for names in part) + lexicon.PRIOR for part in (present[:2], present[2:]))
        z = (np.log(y / (n - y)) - np.log(rest / (m - rest))) / np.sqrt(1 / y + 1 / (n - y) + 1 / rest + 1 / (m - rest))
        assert abs(scores[word]) == pytest.approx(abs(z))


def test_it_finds_exactly_the_planted_hashtags() -> None:
    assert lexicon.context_keys(tagged(0.9, 1200), 5.0) == {"#east", "#west", "#north", "#south"}


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_nothing_where_nothing_is_planted(seed: int) -> None:
    posts = tagged(0.5, 1200, seed)
    assert not lexicon.context_keys(posts, 5.0)
    assert not lexicon.context_kinds(posts, 5.0)
    assert not any(found.any() for found in lexicon.mark(posts, 5.0))


def test_words_that_carry_the_answer_stay_core() -> None:
    """Sentiment words tell the label, and are the label."""
    texts = [f"{word} bread #{tag}" for word, tag in [("awful", "x"), ("good", "y"), ("splendid", "y"), ("dire", "x")] * 100]
    posts = make(texts, [0, 1, 1, 0] * 100)
    assert lexicon.context_keys(posts, 5.0) == {"#x", "#y"}
    assert "awful" not in lexicon.context_keys(posts, 0.5)


def test_the_presence_of_a_kind_is_a_cue() -> None:
    random = np.random.default_rng(0)
    texts, labels = [], []
    for i in range(2000):
        labels.append(i % 2)
        tag = f" # tag{random.integers(0, 1000)}" if random.random() < (0.7 if i % 2 else 0.3) else ""
        texts.append(f"waiting for the bus{tag}")
    posts = make(texts, labels)
    assert lexicon.context_kinds(posts, 5.0) == {"hashtag"}
    assert lexicon.mark(posts, 5.0)[texts.index(next(text for text in texts if "#" in text))].tolist() == [False] * 4 + [True]


def test_a_kind_that_every_post_has_is_no_cue_even_if_classes_differ_in_size() -> None:
    posts = make([f"#a{i % 3} bus" for i in range(900)], [0] * 800 + [1] * 100)
    assert not lexicon.context_kinds(posts, 5.0)


def test_labels_of_test_posts_are_not_read() -> None:
    posts = tagged(0.9, 800)
    train = np.arange(800) < 600
    hidden = Posts(posts.ids, posts.texts, posts.tokens, np.where(train, posts.labels, UNKNOWN), train)
    flipped = Posts(posts.ids, posts.texts, posts.tokens, np.where(train, posts.labels, 1 - posts.labels), train)
    for one, two in zip(lexicon.mark(hidden, 5.0), lexicon.mark(flipped, 5.0), strict=True):
        assert (one == two).all()


def test_one_class_is_told() -> None:
    rows = pl.DataFrame({"id": ["a", "b"], "text": ["x", "y"], "label": [1, 1], "split": ["train", "train"]})
    with pytest.raises(UserError, match="fewer than two classes"):
        posts_of(rows)
