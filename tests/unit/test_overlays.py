"""Marks on images: where they are, what they leave alone, how they reach the views; and the editor that finds them by their place."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from causalroute.audit.images import inspect
from causalroute.counterfactual.image import places
from causalroute.counterfactual.pixels import spread
from causalroute.counterfactual.posts import Posts
from causalroute.counterfactual.views import ImageInput, view_inputs
from causalroute.data import overlays
from causalroute.data.images import open_image
from causalroute.errors import UserError


def photo(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


@given(st.sampled_from(["border", "corner"]), st.integers(0, 6), st.integers(8, 90), st.integers(8, 90))
def test_a_mark_covers_its_region_and_leaves_the_rest_alone(kind: str, cue: int, width: int, height: int) -> None:
    before = photo(cue, (width, height))
    after = np.asarray(overlays.draw(before, overlays.name(kind, cue)))
    where = spread(overlays.region(kind), (width, height))
    assert (after[~where] == np.asarray(before)[~where]).all()
    painted = {tuple(pixel) for pixel in after[where].tolist()}
    assert painted <= {overlays.colour(cue), overlays.WHITE}
    assert (np.asarray(overlays.draw(photo(99, (width, height)), overlays.name(kind, cue)))[where] == after[where]).all(), "the mark hides what was there"


def test_regions_are_the_same_at_every_side_and_colours_differ() -> None:
    for kind, share in (("border", 1 - (26 / 32) ** 2), ("corner", (11 / 32) ** 2), ("tint", 1.0)):
        assert overlays.region(kind).mean() == pytest.approx(share)
        assert (overlays.region(kind, 64) == np.kron(overlays.region(kind), np.ones((2, 2), dtype=bool))).all()
        assert overlays.region(kind, 8).shape == (8, 8)
    found = [np.asarray(overlays.draw(photo(0), f"corner:{cue}")).tobytes() for cue in range(8)]
    assert len(set(found)) == 8
    assert len({overlays.colour(cue) for cue in range(20)}) == 20


def test_a_tint_blends_and_no_mark_changes_nothing() -> None:
    plain = Image.new("RGB", (5, 4), (100, 100, 100))
    tinted = np.asarray(overlays.draw(plain, "tint:1"))
    assert tinted == pytest.approx(np.broadcast_to(100 + overlays.TINT * (np.array(overlays.colour(1)) - 100), (4, 5, 3)), abs=1)
    assert overlays.draw(plain, "") is plain


@pytest.mark.parametrize("wrong", ["frame:0", "border", "border:x", "border:-1", ":1"])
def test_an_unknown_mark_is_told(wrong: str) -> None:
    with pytest.raises(UserError, match="unknown overlay") as failure:
        overlays.draw(photo(0), wrong)
    assert "border, corner, tint" in failure.value.fix


def test_a_mark_is_drawn_wherever_an_image_is_opened(tmp_path: Path) -> None:
    photo(0).save(tmp_path / "a.png")
    marked = overlays.draw(photo(0), "corner:1")
    assert open_image(tmp_path, "a.png", overlay="corner:1").tobytes() == marked.tobytes()
    assert open_image(tmp_path, "a.png").tobytes() == photo(0).tobytes()
    assert ImageInput("a.png", "sha", overlay="corner:1").load(tmp_path).tobytes() == marked.tobytes()
    plain, one, again = inspect(tmp_path, ["a.png", "a.png", "a.png"], ["", "corner:1", "corner:1"])
    assert one is again
    assert (plain.sha256, plain.numbers != one.numbers) == (one.sha256, True)  # type: ignore[union-attr]


def test_content_keys_know_the_mark_and_are_the_old_ones_without_it() -> None:
    item = ImageInput("a.png", "sha", "swap", b"m", 4, "b.png", "other", b"n", 4, "blur")
    assert ImageInput("a.png", "sha").content_key() == "f260f3713a0a5a1c73ec5ce36c188073fc84363b011967d6880bacd31025438c"
    assert item.content_key() == "d845143fb28a8dfd8b41a4d87e7321904c883ce64c6009ee7a168361832ca2c0"
    changed = ({"overlay": "corner:1"}, {"donor_overlay": "corner:1"}, {"overlay": "corner:0", "donor_overlay": "corner:1"}, {"rim": False})
    assert len({item.content_key(), *(dataclasses.replace(item, **change).content_key() for change in changed)}) == 5  # type: ignore[arg-type]


def posts(labels: list[int], train: int) -> Posts:
    count = len(labels)
    return Posts([f"p{i}" for i in range(count)], [""] * count, [[] for _ in labels], np.array(labels), np.arange(count) < train)


@pytest.mark.parametrize("kind", ["border", "corner"])
def test_places_finds_the_region_of_marks_that_go_with_the_class(kind: str) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300).tolist()
    cues = [label if random.random() < 0.8 else int(random.integers(3)) for label in labels]
    shown = np.stack([np.asarray(overlays.draw(photo(i, (32, 32)), f"{kind}:{cue}")) for i, cue in enumerate(cues)])
    found = places.find_cores(posts(labels, 200), shown)
    assert (found == ~overlays.region(kind)).all()
    chance = places.find_cores(posts(random.permutation(labels).tolist(), 200), shown)
    assert chance.all(), "marks that do not go with the class are no context"


def test_places_explains_the_share_of_variance_of_a_naive_loop() -> None:
    random = np.random.default_rng(1)
    shown, labels = random.integers(0, 256, (40, 3, 3, 3), dtype=np.uint8), random.integers(0, 2, 40)
    shown[:, 1, 1, 0] = 90 * labels + random.integers(0, 60, 40)
    naive = np.zeros((3, 3, 3))
    for row in np.ndindex(3, 3, 3):
        values = shown[(slice(None), *row)].astype(float)
        within = sum(((values[labels == c] - values[labels == c].mean()) ** 2).sum() for c in (0, 1))
        naive[row] = 1 - within / ((values - values.mean()) ** 2).sum()
    assert places.explained(shown, labels) == pytest.approx(naive.max(-1), abs=1e-5)


def test_an_exact_mask_is_shown_without_losing_a_rim(tmp_path: Path) -> None:
    from causalroute.counterfactual.pixels import GREY, pack_mask

    for name, seed in (("a", 0), ("b", 1)):
        photo(seed).save(tmp_path / f"{name}.png")
    mask = pack_mask(~overlays.region("corner"))
    manifest = pl.DataFrame({"id": ["a", "b"], "image": ["a.png", "b.png"], "image_sha256": ["1", "2"], "attributes": [None, None], "text": ["", ""]})
    manifest = manifest.with_columns(overlay=pl.Series(["corner:0", "corner:1"]))
    table = pl.DataFrame({"id": ["a"], "mask": [mask], "mask_side": [32], "v_donor": [["b"]], "fill": ["mean"], "level": ["exact"]})
    table = pl.concat([table, table.with_columns(id=pl.lit("b"), v_donor=pl.Series([["a"]]))])
    swap, core, context = (view_inputs(manifest, table, view)[0].load(tmp_path) for view in ("v_swap", "v_c", "v_s"))  # type: ignore[union-attr]
    assert swap.tobytes() == overlays.draw(photo(0), "corner:1").tobytes(), "an opaque mark is exchanged to the last pixel"
    where = spread(overlays.region("corner"), (64, 64))
    assert (np.asarray(core)[where] == GREY).all()
    assert (np.asarray(core)[~where] == np.asarray(photo(0))[~where]).all()
    assert len({tuple(pixel) for pixel in np.asarray(context)[~where].tolist()}) == 1
