from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_lexicon import make

from causalroute.config import Editor
from causalroute.counterfactual.build import COLUMNS, build
from causalroute.counterfactual.posts import UNKNOWN, Posts
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.text import flip, flips
from causalroute.counterfactual.text.found import Found


def rewrites(*rows: tuple[str, str, int | None]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"id": pl.String, "text": pl.String, "label": pl.Int8}, orient="row")


def test_only_rewrites_with_the_other_label_count() -> None:
    posts = make(["i love rain", "i hate rain", "so sunny today", "fog again"], [0, 1, 0, 1])
    table = rewrites(
        ("p0", "i love rain so", 0), ("p0", "i hate rain", 1), ("p0", "i loathe rain", 1), ("p1", "i like rain", None), ("gone", "x", 1), ("p3", "fog", 0)
    )
    assert flip.published(posts, table) == ["i hate rain", None, None, "fog"]
    assert flip.published(posts, None) == flip.published(posts, rewrites()) == [None] * 4


def test_posts_of_other_splits_get_none() -> None:
    posts = make(["i love rain", "i hate rain", "dull"], [0, 1, 0], [True, True, False])
    hidden = Posts(posts.ids, posts.texts, posts.tokens, np.array([0, 1, UNKNOWN]), posts.train)
    assert flip.published(hidden, rewrites(("p2", "great", 1))) == [None] * 3


@pytest.mark.parametrize(
    ("text", "rewritten", "reason"),
    [
        ("i love rain", "", "empty_flip"),
        ("i love rain", "  ", "empty_flip"),
        ("i love rain", "I  LOVE rain", "same_flip"),
        ("i love rain", "i hate rain", ""),
        ("i love rain", "we despise mud wholly", "flip_over_budget"),
        ("i love rain", "i love rain " + "and more " * 100, "flip_over_budget"),
        ("", "x", "flip_over_budget"),
    ],
)
def test_what_is_no_flip(text: str, rewritten: str, reason: str) -> None:
    assert flip.problem(text, rewritten, 0.6) == reason


@given(st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_distance_is_symmetric_bounded_and_zero_for_the_same_bag(one: list[str], two: list[str]) -> None:
    assert flip.distance(one, two) == flip.distance(two, one)
    assert 0 <= flip.distance(one, two) <= 1
    assert (flip.distance(one, two) == 0) == (sorted(one) == sorted(two))


def test_flips_are_written_like_the_corpus() -> None:
    spaced = make(["i love rain , really !", "so sunny . # today", "no mark here"], [0, 1, 0])
    glued = make(["I love rain, really!", "so sunny. #today (again)"], [0, 1])
    assert (flip.is_spaced(spaced), flip.is_spaced(glued)) == (True, False)
    assert not flip.is_spaced(make(["a", "b"], [0, 1]))
    assert flip.styled("I hate  rain, Really!", "i love rain , really !", True) == "i hate rain , really !"
    assert flip.styled("I hate rain, Really!", "I love rain, really!", False) == "I hate rain, Really!"


def test_the_column_is_there_with_and_without_flips() -> None:
    rows = [(f"p{i}", "train" if i < 40 else "id", f"bus {'#a' if i % 2 else '#b'}", i % 2 if i < 40 else None) for i in range(50)]
    manifest = pl.DataFrame(rows, schema={"id": pl.String, "split": pl.String, "text": pl.String, "label": pl.Int8}, orient="row")
    manifest = manifest.with_columns(pl.lit(None, pl.String).alias(name) for name in ("image", "attributes"))
    editor = Editor(text="surface", image="random")
    made = build(manifest, editor, Sources(Path(), rewrites=rewrites(("p1", "tram #a", 0), ("p45", "tram #a", 0))))
    assert list(made.columns) == list(COLUMNS)
    assert list(COLUMNS).index("t_flip") == list(COLUMNS).index("t_swap") + 1
    assert made["t_flip"].to_list() == [None, "tram #a", *[None] * 48]
    assert build(manifest, editor, Sources(Path()))["t_flip"].null_count() == 50


def test_published_flips_come_before_those_of_a_model() -> None:
    posts = make(["i love rain", "i hate rain", "fog"], [0, 1, 0])
    made = flips(posts, Found([], ["i loathe rain", "i like rain", None]), Sources(Path(), rewrites=rewrites(("p0", "i hate rain", 1))))
    assert made == ["i hate rain", "i like rain", None]
    assert flips(posts, Found([]), Sources(Path())) == [None] * 3
