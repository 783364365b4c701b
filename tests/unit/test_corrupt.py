"""Errors put into swaps: rates are met, a hit post is hit in the way described, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from benchmarks.noisy import Noisy
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.gate_posts import SETTINGS, judged
from tests.unit.test_grade import planted
from tests.unit.test_lexicon import make, tagged

from causalroute.config import Corrupt, Editor
from causalroute.counterfactual.build import COLUMNS, build
from causalroute.counterfactual.corrupt import ERRORS, corrupt_texts, errors
from causalroute.counterfactual.gate import gate
from causalroute.counterfactual.grade import grade
from causalroute.counterfactual.judged import Judged
from causalroute.counterfactual.pixels import background_of, transplant, unpack_mask
from causalroute.counterfactual.posts import edited
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.text import edit_texts, find
from causalroute.counterfactual.text.swap import context_of, swap
from causalroute.counterfactual.tokens import tokenize
from causalroute.counterfactual.views import SWAP_FILL, view_inputs
from causalroute.data.images import open_image

SWAPPED = {"t_swap", "t_donor", "text_edit_distance", "v_donor"}
HALF = Corrupt(fail=0.3, destroy=0.4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame, pl.DataFrame]:
    root = tmp_path_factory.mktemp("corrupt")
    return root, *planted(root)


def made(world: tuple[Path, pl.DataFrame, pl.DataFrame], corrupt: Corrupt, text: str = "truth", image: str = "truth") -> pl.DataFrame:
    root, manifest, truth = world
    return build(manifest, Editor(text=text, image=image, corrupt=corrupt), Sources(root, truth))  # type: ignore[arg-type]


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 0.6), st.floats(0, 0.4), st.integers(0, 99), st.sampled_from(["text", "image", "attributes"]))
def test_rates_are_met_within_binomial_bounds(fail: float, destroy: float, seed: int, side: str) -> None:
    items = 2000
    hit = errors([f"p{i}" for i in range(items)], [True] * items, Corrupt(fail=fail, destroy=destroy, seed=seed), side)
    for name, rate in (("fail", fail), ("destroy", destroy)):
        assert abs(hit.count(name) - items * rate) <= 5 * np.sqrt(items * rate * (1 - rate)) + 1e-9


def test_a_higher_rate_hits_the_same_posts_and_more_and_sides_draw_apart() -> None:
    ids, usable = [f"p{i}" for i in range(2000)], [i % 10 > 0 for i in range(2000)]
    low, high = (np.array(errors(ids, usable, Corrupt(fail=rate, destroy=rate), "text")) for rate in (0.1, 0.4))
    assert (high[low != None] == low[low != None]).all()  # noqa: E711 - element by element
    assert set(high[~np.array(usable)]) == {None}
    both = [np.array(errors(ids, [True] * 2000, Corrupt(destroy=0.5), side)) == "destroy" for side in ("text", "image")]
    assert abs((both[0] & both[1]).mean() - 0.25) < 0.05


@pytest.mark.parametrize("names", [("truth", "truth"), ("surface", "centre")])
def test_posts_that_are_not_hit_are_as_the_editor_made_them(world: tuple[Path, pl.DataFrame, pl.DataFrame], names: tuple[str, str]) -> None:
    clean, table = made(world, Corrupt(), *names), made(world, HALF, *names)
    assert clean.columns == list(COLUMNS)
    assert table.columns == [*COLUMNS, *ERRORS]
    assert table.schema == pl.Schema(COLUMNS | ERRORS)
    assert table.drop(*SWAPPED, *ERRORS).equals(clean.drop(*SWAPPED))
    for side, columns in (("text", ["t_swap", "t_donor", "text_edit_distance"]), ("image", ["v_donor"])):
        spared = table[f"{side}_error"].is_null()
        assert 0 < spared.sum() < table.height
        assert table.filter(spared).select(columns).equals(clean.filter(spared).select(columns))
        assert set(table[f"{side}_error"].drop_nulls()) == {"fail", "destroy"}
    spared = table.filter(table["image_error"].is_null())
    assert spared["v_core"].to_list() == [[one, one] for one in spared["id"]]


def test_a_curve_can_be_put_together_from_its_ends(world: tuple[Path, pl.DataFrame, pl.DataFrame]) -> None:
    ends = {None: made(world, Corrupt()), "fail": made(world, Corrupt(fail=1.0)), "destroy": made(world, Corrupt(destroy=1.0))}
    table = made(world, HALF)
    for row, (text, image) in enumerate(table.select("text_error", "image_error").iter_rows()):
        for error, columns in ((text, ["t_swap", "t_donor", "text_edit_distance"]), (image, ["v_donor"])):
            assert ends[error].select(columns).row(row) == table.select(columns).row(row)
        if image is not None:
            assert ends[image]["v_core"][row].to_list() == table["v_core"][row].to_list()


def test_a_failed_swap_is_the_post_itself(world: tuple[Path, pl.DataFrame, pl.DataFrame]) -> None:
    _, manifest, truth = world
    table = made(world, Corrupt(fail=1.0))
    posts = edited(manifest)
    assert table["t_swap"].to_list() == [[text, text] for text in posts["text"]]
    assert table["text_ok"].all()
    assert table["image_ok"].all()
    assert table["text_edit_distance"].to_list() == [0.0] * table.height
    own = view_inputs(manifest, None, "v")
    assert view_inputs(manifest, table, "v_swap") == [one for one in own for _ in range(2)], "found in the store, never encoded again"
    found = grade(made(world, Corrupt(fail=0.5)), manifest, truth)
    assert found["text"]["failed"] == pytest.approx(0.5, abs=0.2)
    assert found["image"]["failed"] == pytest.approx(0.5, abs=0.2)


def test_a_destroyed_text_has_its_donors_context_and_the_words_of_another_post() -> None:
    posts = tagged(0.9, 400)
    marks = find(posts, Editor(text="lexicon", image="random"), Sources(Path())).marks
    clean = edit_texts(posts, marks, 2, 0)
    table = corrupt_texts(clean, posts, marks, Corrupt(destroy=1.0, seed=3))
    cores = {" ".join(text.split()[:-1]) for text in posts.texts}
    kept = 0
    for text, before, after in zip(posts.texts, clean["t_swap"].to_list(), table["t_swap"].to_list(), strict=True):
        for one, other in zip(before, after, strict=True):
            assert other.split()[-1] == one.split()[-1], "the cue is the donor's"
            assert len(other.split()) == len(one.split())
            assert any(core.startswith(part) or part.startswith(core) for core in cores for part in [" ".join(other.split()[:-1])])
            kept += other.split()[:-1] == text.split()[:-1]
    assert kept < 0.5 * 2 * len(posts.ids)
    assert (table["text_edit_distance"] >= clean["text_edit_distance"]).mean() == 1.0


def test_words_take_their_places_in_order_begin_anew_and_are_cut() -> None:
    posts = make(["a b , c d #x", "e f #y", "#z"], [0, 1, 1])
    marks = [np.array([token.kind == "hashtag" for token in tokens]) for tokens in posts.tokens]
    table = corrupt_texts(edit_texts(posts, marks, 4, 0), posts, marks, Corrupt(destroy=1.0))
    assert set(table["t_swap"][0].to_list()) <= {f"e f , e f {tag}" for tag in ("#y", "#z")} | {f", {tag}" for tag in ("#y", "#z")}
    assert set(table["t_swap"][1].to_list()) <= {"a b #x", "#x"}
    assert table["t_swap"][2].to_list() == ["#x"] * 4, "no core, nothing to destroy"


@given(st.lists(st.sampled_from(["bus", "late", "#a", "#b", "7", ",", "<user>"]), min_size=1, max_size=8), st.integers(0, 255))
def test_a_swap_that_begins_with_its_own_words_is_the_plain_swap(words: list[str], bits: int) -> None:
    text = " ".join(words)
    tokens = tokenize(text)
    mark = np.array([bool(bits >> i & 1) for i in range(len(tokens))])
    donor = context_of("#q r 9", tokenize("#q r 9"), np.ones(3, dtype=bool))
    assert swap(text, tokens, mark, donor, written=[text[one.start : one.end] for one in tokens]) == swap(text, tokens, mark, donor)


def test_a_destroyed_image_shows_the_core_of_another_post_on_the_donors_background(world: tuple[Path, pl.DataFrame, pl.DataFrame]) -> None:
    root, manifest, _ = world
    table = made(world, Corrupt(destroy=1.0))
    train = set(manifest.filter(pl.col("split") == "train")["id"])
    paths, position = dict(manifest.select("id", "image").iter_rows()), {name: row for row, name in enumerate(table["id"])}
    masks = [unpack_mask(bits, side) for bits, side in table.select("mask", "mask_side").iter_rows()]
    inputs = iter(view_inputs(manifest, table, "v_swap"))
    for name, cores, donors in table.select("id", "v_core", "v_donor").head(8).iter_rows():
        assert set(cores) <= train - {name}
        for core, donor in zip(cores, donors, strict=True):
            own, lent = open_image(root, paths[core]), open_image(root, paths[donor])
            expected = transplant(own, masks[position[core]], background_of(lent, masks[position[donor]], own.size, SWAP_FILL))
            assert next(inputs).load(root).tobytes() == expected.tobytes()  # type: ignore[union-attr]


def test_attribute_words_are_hit_like_texts_with_draws_of_their_own(world: tuple[Path, pl.DataFrame, pl.DataFrame]) -> None:
    root, manifest, _ = world
    words = manifest.with_columns(attributes=pl.col("text"), image=pl.lit(None, pl.String))
    table = build(words, Editor(text="lexicon", image="random", z=1.0, corrupt=HALF), Sources(root))
    assert table["text_error"].to_list() != table["image_error"].to_list()
    assert table.columns == [*COLUMNS, "text_error", "image_error"]
    for name, error, swaps in table.select("id", "image_error", "attr_swap").iter_rows():
        own = words.filter(pl.col("id") == name)["attributes"][0]
        assert (swaps == [own, own]) == (error == "fail"), name


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="together at most 1"):
        Corrupt(fail=0.7, destroy=0.4)
    with pytest.raises(ValueError, match="together at most 1"):
        Corrupt(fail=-0.1)
    with pytest.raises(ValueError, match="not on level 'patches'"):
        Editor(text="lexicon", image="centre", level="patches", corrupt=Corrupt(fail=0.1))


@pytest.mark.parametrize(("corrupt", "items", "reason"), [(Corrupt(destroy=1.0), 600, "lose the label"), (Corrupt(fail=1.0), 500, "change nothing")])
def test_the_gate_notices_heavy_errors(corrupt: Corrupt, items: int, reason: str) -> None:
    good, bad = judged(items), judged(items, bad="destroyed")
    hit = np.array(errors(good.rows["id"].to_list(), [True] * items, corrupt, "text"))[:, None, None]
    views = {**good.views, "t_swap": np.select([hit == "destroy", hit == "fail"], [bad.views["t_swap"], good.views["t"][:, None]], good.views["t_swap"])}
    found = gate(Judged(good.rows, good.labels, good.classes, good.fold, views, good.visual), SETTINGS)
    assert any(reason in sentence for sentence in found["text"]["reasons"])
    assert found["image"]["passed"]


def test_the_benchmark_picks_features_like_a_loop() -> None:
    items, draw = 60, torch.Generator().manual_seed(0)
    noisy = object.__new__(Noisy)
    noisy.words = make(["a #x"] * items, [i % 2 for i in range(items)])
    noisy.table = pl.DataFrame({"text_ok": [i % 7 > 0 for i in range(items)], "image_ok": [True] * items})
    noisy.place = torch.arange(items) + 5
    noisy.factual = {letter: torch.randn(items + 5, 3, generator=draw) for letter in "tv"}
    noisy.views, noisy.destroyed = ({f"{letter}_swap": torch.randn(items, 2, 3, generator=draw) for letter in "tv"} for _ in range(2))
    found = noisy.swaps(HALF)
    for side, letter in (("text", "t"), ("image", "v")):
        view = f"{letter}_swap"
        hit = errors(noisy.words.ids, noisy.table[f"{side}_ok"], HALF, side)
        assert set(hit) == {None, "fail", "destroy"}
        for row, error in enumerate(hit):
            own = noisy.factual[letter][row + 5].expand(2, 3)
            assert torch.equal(found[view][row], {"fail": own, "destroy": noisy.destroyed[view][row], None: noisy.views[view][row]}[error])
