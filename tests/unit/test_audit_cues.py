"""Candidates: tokens, pairs, surface forms, metadata; what untrusted text does to them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalroute.audit import forms, metadata, text
from causalroute.audit.cues import Numbers, Present, gather
from causalroute.audit.describe import QUOTED, quote
from causalroute.audit.posts import Posts
from causalroute.config import Audit
from causalroute.counterfactual.tokens import tokenize

STRANGE = [
    "",
    " ",
    "#",
    "\u200b\u200f",
    "a" * 100_000,
    "שלום #עולם !!",
    "مرحبا",
    "👩‍👩‍👧 🎉🎉",
    "<script>alert(1)</script>",
    "x\x00y",
    "ＡＢＣ",
    "e\u0301" * 50,
]


def posts_of(texts: list[str], metadata: dict[str, list[str | None]] | None = None) -> Posts:
    labels = np.arange(len(texts)) % 2
    none: list[str | None] = [None] * len(texts)
    return Posts([str(i) for i in range(len(texts))], texts, labels, ("a", "b"), np.ones(len(texts), dtype=bool), none, none, metadata or {})


@given(st.lists(st.text(alphabet="ab #@1!? ñ🎉<>num_", max_size=30), max_size=12))
@settings(max_examples=60, deadline=None)
def test_codes_and_pairs_are_those_of_the_tokens(texts: list[str]) -> None:
    encoded = text.encode(texts)
    naive = [[token.key for token in tokenize(one)] for one in texts]
    single = text.tokens(encoded).toarray()
    assert [[(key, keys.count(key)) for key in sorted(set(keys))] for keys in naive] == [
        sorted((encoded.keys[w], int(row[w])) for w in np.flatnonzero(row)) for row in single
    ]
    codes, double = text.bigrams(encoded, np.ones(len(encoded.keys), dtype=bool))
    names = [(encoded.keys[a], encoded.keys[b]) for a, b in codes.tolist()]
    assert [sorted(set(itertools.pairwise(keys))) for keys in naive] == [sorted(names[p] for p in np.flatnonzero(row)) for row in double.toarray()]


def test_pairs_keep_to_the_chosen_tokens_and_do_not_cross_posts() -> None:
    encoded = text.encode(["a b c", "c a"])
    codes, matrix = text.bigrams(encoded, np.array([key != "b" for key in encoded.keys]))
    assert [(encoded.keys[a], encoded.keys[b]) for a, b in codes.tolist()] == [("c", "a")]
    assert matrix.toarray().tolist() == [[0], [1]]


FORMS = {
    "Great!! Really??": {"has exclamation mark", "has question mark", "has repeated mark", "ends with a mark", "script Latin"},
    "wait ... what": {"has ellipsis", "all lower case"},
    "“so it goes”": {"wrapped in quotes", "has quotes"},
    "RT @user soooo GOOD": {"starts as a retweet", "has lengthened word", "has word in capitals"},
    "Big News Today": {"title case"},
    "ALL OF IT": {"all upper case", "has word in capitals"},
    "a\nb (c)": {"has line break", "has brackets"},
    "fish &amp; <b>chips</b>": {"has markup"},
    "in\u200bvisible": {"has invisible character"},
    "Привет мир": {"script Cyrillic"},
    "今日は良い天気": {"script Han"},
    "きょうはいい": {"script Kana"},
    "안녕하세요": {"script Hangul"},
    "مرحبا": {"script Arabic"},
    "שלום": {"script Hebrew"},
    "नमस्ते": {"script Devanagari"},
    "one – two": {"has dash"},
    "  ": {"no text"},
}


@pytest.mark.parametrize("post", FORMS)
def test_forms(post: str) -> None:
    assert forms.forms(post)[0] >= FORMS[post]


def test_forms_that_are_not_there() -> None:
    found, (length, upper, marks) = forms.forms("quiet words #Loud @You https://A.b/C?d <user> <num> emoji_12")
    assert found == {"all lower case", "script Latin"}
    assert (length, upper, marks) == (5.0, 0.0, 0.0), "hashtags, mentions, links and codes have cues of their own"
    assert "all lower case" not in forms.forms("שלום")[0], "a script without cases"
    assert forms.forms("2 + 2")[1] != forms.forms("two")[1]


@pytest.mark.parametrize("post", STRANGE)
def test_strange_text_is_read(post: str) -> None:
    names, numbers = forms.forms(post)
    assert "no text" not in names or not post.strip()
    assert len(numbers) == 3
    gathered = gather(posts_of([post, "plain words"] * 30), [None] * 60, Audit(min_count=5))
    assert all(np.isfinite(group.matrix.data).all() for group in gathered.groups if isinstance(group, Present))


def test_candidates_occur_often_enough_and_not_everywhere() -> None:
    texts = [f"always {'often' if i % 2 else 'other'} {'rare' if i < 4 else ''} w{i}" for i in range(40)]
    gathered = gather(posts_of(texts), [None] * 40, Audit(min_count=5))
    names = {name for group in gathered.groups if isinstance(group, Present) for name in group.names}
    assert {"often", "other"} <= names
    assert not {"always", "always often", "rare", "w3", "script Latin"} & names


def test_pairs_know_their_tokens() -> None:
    texts = [" ".join(np.random.default_rng(i).choice(["red", "green", "blue", "#dot"], 6)) for i in range(80)]
    single, pairs, *_ = gather(posts_of(texts), [None] * 80, Audit(min_count=5)).groups
    assert isinstance(pairs, Present)
    assert pairs.parents is not None
    assert len(pairs.names) >= 10
    assert [f"{single.names[first]} {single.names[second]}" for first, second in pairs.parents.tolist()] == pairs.names
    kinds = dict(zip(pairs.names, pairs.kinds, strict=True))
    assert (kinds["#dot red"], kinds["red green"], kinds["#dot #dot"]) == ("phrase", "phrase", "surface pair")


def test_columns_of_metadata() -> None:
    held, numbers = metadata.column("source", ["web", "phone", None, " web "])
    assert held == [{"source is filled", "source=web"}, {"source is filled", "source=phone"}, set(), {"source is filled", "source=web"}]
    assert numbers is None
    _, years = metadata.column("year", [str(1990 + i) for i in range(30)] + ["?", None])
    assert years is not None
    assert years[0] == 1990
    assert np.isnan(years[-2:]).all()
    _, flags = metadata.column("flag", ["0", "1"] * 20)
    assert flags is None, "few values are taken value by value"
    names, lengths = metadata.column("ocr", [f"words number {i}" for i in range(40)])
    assert lengths is not None
    assert lengths[0] == len("words number 0")
    assert names[0] == {"ocr is filled"}
    assert metadata.column("huge", ["1e999"] * 30)[1] is None


def test_clusters_are_those_of_the_features() -> None:
    random = np.random.default_rng(0)
    features = np.repeat(np.eye(4), 30, axis=0) + 0.001 * random.normal(size=(120, 4))
    features[7] = np.nan
    names = metadata.clusters(features, 0)
    assert names[7] == ""
    for name in set(names) - {""}:
        assert len({row // 30 for row, other in enumerate(names) if other == name}) == 1
    assert metadata.clusters(features[:5], 0) == [""] * 5
    assert names == metadata.clusters(features, 0)


def test_numbers_of_posts_without_words_are_unknown_and_not_zero() -> None:
    gathered = gather(posts_of(["", "Words here"] * 10), [None] * 20, Audit(min_count=2))
    numbers = next(group for group in gathered.groups if isinstance(group, Numbers))
    assert numbers.names[0] == "tokens"
    assert numbers.values[0].tolist()[0] == 0
    assert np.isnan(numbers.values[0][1:]).all()


def test_a_quote_shows_the_cue_of_a_long_post() -> None:
    long = "word " * 500 + "#cue here " + "end " * 500
    shown = quote(long, "#cue")
    assert "#cue here" in shown
    assert len(shown) <= QUOTED + 4
    assert quote("short\n post", "#cue") == "short post"
    assert quote("a" * 100_000, "b").startswith("aaa")
