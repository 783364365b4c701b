from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from causalroute.counterfactual.pixels import background_of, pack_mask, transplant
from causalroute.counterfactual.views import MASK, SWAP_FILL, ImageInput, TextInput, edited_rows, view_inputs, visual_side
from causalroute.errors import UserError
from causalroute.io import sha256_file


def manifest(visual: str = "image") -> pl.DataFrame:
    ids = ["a", "b", "c", "z"]
    return pl.DataFrame(
        {
            "id": ids,
            "split": ["train", "train", "id", "oracle_train"],
            "text": [f"text {name}" for name in ids],
            "image": [f"{name}.png" if visual == "image" else None for name in ids],
            "attributes": [f"words {name}" if visual == "attributes" else None for name in ids],
            "label": [0, 1, None, 0],
            "image_sha256": [f"sha {name}" if visual == "image" else None for name in ids],
        },
        schema_overrides={"image": pl.String, "attributes": pl.String, "image_sha256": pl.String},
    )


def mask(corner: int) -> np.ndarray:
    grid = np.zeros((4, 4), dtype=bool)
    grid[corner : corner + 2, :2] = True
    return grid


def counterfactuals() -> pl.DataFrame:
    ids = ["a", "b", "c"]
    return pl.DataFrame(
        {
            "id": ids,
            "t_s": [f"{MASK} {name}" for name in ids],
            "t_c": [f"text {MASK}" for _ in ids],
            "t_swap": [[f"{name}1", f"{name}2"] for name in ids],
            "mask": [pack_mask(mask(i)) for i in range(3)],
            "mask_side": [4, 4, 4],
            "v_donor": [["b", "b"], ["a", "a"], ["a", "b"]],
            "fill": ["mean"] * 3,
            "attr_s": [f"{name} s" for name in ids],
            "attr_c": [f"{name} c" for name in ids],
            "attr_swap": [[f"{name} x", f"{name} y"] for name in ids],
        }
    )


def test_factual_views_cover_the_manifest_and_edited_ones_the_table() -> None:
    posts, table = manifest(), counterfactuals()
    assert view_inputs(posts, None, "t") == [TextInput(f"text {name}") for name in "abcz"]
    assert view_inputs(posts, None, "v") == [ImageInput(f"{name}.png", f"sha {name}") for name in "abcz"]
    assert view_inputs(posts, None, "t_0") == [TextInput(MASK)]
    assert [one.text for one in view_inputs(posts, table, "t_s")] == [f"{MASK} {name}" for name in "abc"]  # type: ignore[union-attr]
    assert edited_rows(posts, table) == [0, 1, 2]


def test_swaps_come_row_by_row() -> None:
    posts, table = manifest(), counterfactuals()
    assert view_inputs(posts, table, "t_swap") == [TextInput(text) for text in ("a1", "a2", "b1", "b2", "c1", "c2")]
    swaps = view_inputs(posts, table, "v_swap")
    assert [(one.path, one.donor_path) for one in swaps] == [  # type: ignore[union-attr]
        ("a.png", "b.png"),
        ("a.png", "b.png"),
        ("b.png", "a.png"),
        ("b.png", "a.png"),
        ("c.png", "a.png"),
        ("c.png", "b.png"),
    ]
    assert swaps[4].mask == pack_mask(mask(2))  # type: ignore[union-attr]
    assert swaps[4].donor_mask == pack_mask(mask(0))  # type: ignore[union-attr]


def test_attribute_words_take_the_place_of_images() -> None:
    posts, table = manifest("attributes"), counterfactuals()
    assert visual_side(posts) == "attributes"
    assert view_inputs(posts, None, "v")[0] == TextInput("words a")
    assert view_inputs(posts, table, "v_s")[1] == TextInput("b s")
    assert view_inputs(posts, table, "v_c")[1] == TextInput("b c")
    assert view_inputs(posts, table, "v_swap")[1] == TextInput("a y")
    assert view_inputs(posts, table, "v_0") == [TextInput("")]
    assert view_inputs(manifest("none"), None, "v") == [TextInput("")] * 4


def test_keys_change_with_everything_that_changes_the_pixels() -> None:
    base = ImageInput("a.png", "1", "swap", b"m", 3, "b.png", "2", b"n", 3, "mean")
    changes = {"image_sha256": "3", "op": "core", "mask": b"x", "side": 4, "donor_sha256": "4", "donor_mask": b"y", "donor_side": 5, "fill": "blur"}
    keys = {base.content_key(), *(dataclasses.replace(base, **{name: value}).content_key() for name, value in changes.items())}  # type: ignore[arg-type]
    assert len(keys) == len(changes) + 1
    assert dataclasses.replace(base, path="moved.png", donor_path="too.png").content_key() == base.content_key()
    assert TextInput("a").content_key() != TextInput("b").content_key()


def test_loading_makes_the_edit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in "abcz":
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    posts, table = manifest(), counterfactuals()
    swap = view_inputs(posts, table, "v_swap")[0]
    own, donor = (Image.open(tmp_path / f"{name}.png") for name in "ab")
    expected = transplant(own, mask(0), background_of(donor, mask(1), own.size, SWAP_FILL))
    assert swap.load(tmp_path).tobytes() == expected.tobytes()  # type: ignore[union-attr]
    for view in ("v", "v_s", "v_c"):
        image = view_inputs(posts, table, view)[0].load(tmp_path)  # type: ignore[union-attr]
        assert (image.tobytes() == own.tobytes()) == (view == "v")


def test_a_donor_that_changes_under_its_path_is_read_again(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (0, 255, 0)).save(tmp_path / "a.png")
    swaps = []
    for colour in ((255, 0, 0), (0, 0, 255)):
        Image.new("RGB", (16, 16), colour).save(tmp_path / "b.png")
        cells = pack_mask(np.eye(4, dtype=bool))
        item = ImageInput("a.png", "1", "swap", cells, 4, "b.png", sha256_file(tmp_path / "b.png"), cells, 4, "blur")
        swaps.append(np.asarray(item.load(tmp_path)))
    assert swaps[0][0, 15].tolist() == [255, 0, 0]
    assert swaps[1][0, 15].tolist() == [0, 0, 255]


def test_the_reference_is_found_where_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "reference.png"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file)
    (reference,) = view_inputs(manifest(), None, "v_0", file)
    assert reference.load(tmp_path / "elsewhere").getpixel((0, 0)) == (1, 2, 3)  # type: ignore[union-attr]
    with pytest.raises(UserError, match="needs the reference"):
        view_inputs(manifest(), None, "v_0")


def test_misuse_is_told() -> None:
    posts, table = manifest(), counterfactuals()
    with pytest.raises(UserError, match="unknown view"):
        view_inputs(posts, table, "t_x")
    with pytest.raises(UserError, match="needs counterfactuals"):
        view_inputs(posts, None, "t_c")
    with pytest.raises(UserError, match="belong to no post"):
        edited_rows(posts, table.with_columns(pl.Series("id", ["a", "b", "nobody"])))


def test_a_post_without_image_has_the_reference_in_every_visual_view(tmp_path: Path) -> None:
    file = tmp_path / "reference.png"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file)
    posts = manifest().with_columns(pl.Series("image", ["a.png", None, "c.png", "z.png"]))
    table = counterfactuals().with_columns(
        pl.Series("mask", [pack_mask(mask(0)), None, pack_mask(mask(2))]), pl.Series("v_donor", [["c", "a"], ["b", "b"], ["a", "a"]])
    )
    assert visual_side(posts) == "image"
    blank = view_inputs(posts, None, "v_0", file)[0]
    ops = {view: [one.op for one in view_inputs(posts, table, view, file)] for view in ("v", "v_s", "v_c", "v_swap")}  # type: ignore[union-attr]
    assert ops == {
        "v": ["original", "reference", "original", "original"],
        "v_s": ["context", "reference", "context"],
        "v_c": ["core", "reference", "core"],
        "v_swap": ["swap", "swap", "reference", "reference", "swap", "swap"],
    }
    for view, row in (("v", 1), ("v_s", 1), ("v_c", 1), ("v_swap", 2)):
        assert view_inputs(posts, table, view, file)[row] == blank
    for given in (None, tmp_path / "absent.png"):
        with pytest.raises(UserError, match="needs the reference"):
            view_inputs(posts, None, "v", given)
