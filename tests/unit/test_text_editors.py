from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.unit.test_lexicon import make, tagged

from causalroute.config import Editor
from causalroute.counterfactual.donors import Donors
from causalroute.counterfactual.posts import UNKNOWN, Posts
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.text import edit_texts, find
from causalroute.counterfactual.text.swap import LIST, context_lean, swap
from causalroute.counterfactual.tokens import tokenize
from causalroute.errors import UserError


def context(text: str, *words: str) -> np.ndarray:
    return np.array([text[token.start : token.end] in words for token in tokenize(text)], dtype=bool)


def swapped(text: str, words: tuple[str, ...], donor: dict[str, list[str]], inline: tuple[str, ...] = ("word", "number", "punctuation")) -> str:
    return swap(text, tokenize(text), context(text, *words), donor, inline).text


def test_tokens_of_the_same_kind_take_the_slots_in_order() -> None:
    assert swapped("#a bus #b late", ("#a", "#b"), {"hashtag": ["#x", "#y"]}) == "#x bus #y late"


def test_fewer_donor_tokens_are_cycled_and_more_are_cut() -> None:
    assert swapped("#a bus #b #c", ("#a", "#b", "#c"), {"hashtag": ["#x", "#y"]}) == "#x bus #y #x"
    assert swapped("bus #b", ("#b",), {"hashtag": ["#x", "#y"]}) == "bus #x"


def test_a_kind_only_one_side_has_is_dropped_or_added() -> None:
    assert swapped("bus # b late", ("# b",), {}) == "bus late"
    assert swapped("bus late", (), {"hashtag": ["# x"], "mention": ["<user>"], "emoji": ["emoji_1"]}) == "<user> bus late # x emoji_1"


def test_tokens_inside_a_sentence_are_replaced_or_kept_never_dropped() -> None:
    assert swapped("wait <num> min ...", ("<num>", "..."), {"number": ["7"]}) == "wait 7 min ..."
    assert swapped("wait a min", (), {"number": ["7"], "word": ["w"]}) == "wait a min"


def test_lists_of_attribute_words_take_and_lose_any_word() -> None:
    assert swapped("man tie street", ("man", "tie"), {"word": ["dog"]}, LIST) == "dog dog street"
    assert swapped("street", (), {"word": ["dog"]}, LIST) == "street dog"


def test_edits_are_counted() -> None:
    text = "#a bus <user> late"
    assert swap(text, tokenize(text), context(text, "#a", "<user>"), {"hashtag": ["#x"], "emoji": ["emoji_1", "emoji_2"]}).edits == 4


def test_every_swap_of_a_planted_post_shows_the_other_cue() -> None:
    posts = tagged(0.9, 600)
    editor = Editor(text="lexicon", image="saliency", swaps=2)
    table = edit_texts(posts, find(posts, editor, Sources(Path())).marks, 2, 0)
    cue = {"#east": 0, "#west": 0, "#north": 1, "#south": 1}
    label = dict(zip(posts.ids, posts.labels, strict=True))
    for text, own, swaps, donors in zip(posts.texts, posts.labels, table["t_swap"].to_list(), table["t_donor"].to_list(), strict=True):
        assert len(swaps) == len(donors) == len(set(donors)) == 2
        for changed, donor in zip(swaps, donors, strict=True):
            assert label[donor] != own
            assert changed.split()[:-1] == text.split()[:-1], "the core stays"
            assert cue[changed.split()[-1]] != cue[text.split()[-1]]
    assert table["text_ok"].all()
    assert table["t_c"][0] == " ".join([*posts.texts[0].split()[:-1], "[MASK]"])
    assert table["t_s"][0] == " ".join(["[MASK]"] * 4 + posts.texts[0].split()[-1:])
    assert table["text_mask_ratio"].to_list() == pytest.approx([0.2] * 600)


def test_donors_are_train_posts_and_depend_on_seed_and_id_alone() -> None:
    posts = tagged(0.9, 400)
    train = np.arange(400) < 300
    posts = Posts(posts.ids, posts.texts, posts.tokens, np.where(train, posts.labels, UNKNOWN), train)
    found = find(posts, Editor(text="lexicon", image="saliency"), Sources(Path())).marks
    one, two, other = (edit_texts(posts, found, 2, seed) for seed in (0, 0, 1))
    assert one.equals(two)
    assert not one["t_donor"].equals(other["t_donor"])
    assert {donor for donors in one["t_donor"].to_list() for donor in donors} <= set(posts.ids[:300])


def test_the_style_of_a_post_stays_in_its_context_where_asked() -> None:
    posts = make(["@app the bus #a", "@app the tram #b"], [0, 1])
    marks = [np.array([False, False, False, True])] * 2
    plain, styled = (edit_texts(posts, marks, 1, 0, style=style) for style in (False, True))
    assert plain["t_s"][0] == "[MASK] [MASK] [MASK] #a"
    assert styled["t_s"][0] == "@app [MASK] [MASK] #a"
    assert plain.drop("t_s").equals(styled.drop("t_s"))


def test_a_post_without_context_among_posts_without_any_cannot_be_swapped() -> None:
    posts = make(["the bus", "a train", "the tram", "a car"], [0, 1, 0, 1])
    table = edit_texts(posts, [np.zeros(2, dtype=bool)] * 4, 2, 0)
    assert not table["text_ok"].any()
    assert table["t_swap"].to_list() == [[text, text] for text in posts.texts]
    assert table["t_s"][0] == "[MASK] [MASK]"


def test_more_swaps_than_donors_repeat_them_and_no_donor_is_no_swap() -> None:
    posts = make(["bus #a", "tram #b"], [0, 1])
    table = edit_texts(posts, [np.array([False, True])] * 2, 3, 0)
    assert table["t_swap"].to_list() == [["bus #b"] * 3, ["tram #a"] * 3]
    empty = Donors(posts, 0, "text", np.array([False, False]))
    assert empty.draw(0, 2, lambda rows: np.zeros(len(rows))) == []


def test_the_random_editor_marks_as_many_tokens_elsewhere() -> None:
    posts = tagged(0.9, 500)
    found, random = (find(posts, Editor(text=name, image="random"), Sources(Path())).marks for name in ("lexicon", "random"))  # type: ignore[arg-type]
    assert [mark.sum() for mark in random] == [mark.sum() for mark in found]
    agree = np.mean([(one & two).any() for one, two in zip(found, random, strict=True)])
    assert 0.1 < agree < 0.3, "one of five tokens by chance"


def test_the_truth_editor_marks_the_true_spans_and_needs_them() -> None:
    posts = make(["bus #a late", "tram #b"], [0, 1])
    truth = pl.DataFrame({"id": ["p1", "p0"], "cue_spans": [[{"start": 5, "end": 7}], [{"start": 4, "end": 6}]]})
    editor = Editor(text="truth", image="truth")
    assert [mark.tolist() for mark in find(posts, editor, Sources(Path(), truth)).marks] == [[False, True, False], [False, True]]
    with pytest.raises(UserError, match="needs known truth"):
        find(posts, editor, Sources(Path()))
    with pytest.raises(UserError, match="1 posts have no known truth, the first is 'p1'"):
        find(posts, editor, Sources(Path(), truth.filter(pl.col("id") == "p0")))


def test_lean_is_what_the_context_speaks_for() -> None:
    posts = tagged(0.9, 600)
    lean = context_lean(posts, find(posts, Editor(text="lexicon", image="random"), Sources(Path())).marks)
    assert lean.tolist() == [int(text.split()[-1] in ("#north", "#south")) for text in posts.texts]
    assert context_lean(posts, [np.zeros(len(tokens), dtype=bool) for tokens in posts.tokens]).tolist() == [UNKNOWN] * 600
