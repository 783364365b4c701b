"""Views pooled from patch features (level: patches): what is in them, how they reach the feature file, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.unit import tiny_models as tiny
from tests.unit.test_features_stage import call, checkout, edits, manifest
from tests.unit.test_image_editors import GreenSeer

from causalroute import layout
from causalroute.counterfactual.pixels import inner, pack_mask
from causalroute.errors import UserError
from causalroute.features.build import windows_of
from causalroute.features.encoding import Encoding
from causalroute.features.pooled import FREE, INSIDE, Patches, Pool, context_patches, core_patches, patch_views, shares
from causalroute.features.store import Store
from causalroute.io import ids_digest, read_tensors, write_tensors
from causalroute.stages import tokens

assert checkout  # a fixture
WHOLE = (0.0, 0.0, 1.0, 1.0)
GRID, SIDE, WIDTH = 4, 16, 3


def square(top: int, left: int, size: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[top : top + size, left : left + size] = True
    return mask


def tokens_file(path: Path, values: torch.Tensor, ids: list[str]) -> Path:
    lengths = torch.full((len(ids),), values.shape[1], dtype=torch.int32)
    write_tensors(path, {"v": values.half().flatten(0, 1), "v_lengths": lengths}, {"ids_sha256": ids_digest(ids)})
    return path


def posts(count: int = 6) -> pl.DataFrame:
    ids = [f"p{row}" for row in range(count)]
    return pl.DataFrame({"id": ids, "split": ["train"] * count, "image": [f"{name}.png" for name in ids]})


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_shares_are_those_of_the_cells(grid: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((4 * grid, 4 * grid)) < 0.5
    found = shares(mask, WHOLE, grid)
    expected = [mask[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean() for y in range(grid) for x in range(grid)]
    assert found == pytest.approx(expected)
    assert context_patches(found).any()
    assert core_patches(found).any()


def test_shares_look_through_the_window_of_the_preprocessing() -> None:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[:, : SIDE // 4] = True
    assert shares(mask, (0.25, 0.0, 0.75, 1.0), GRID).sum() == 0
    assert shares(mask, (0.0, 0.0, 0.5, 1.0), GRID).reshape(GRID, GRID).tolist() == [[1, 1, 0, 0]] * GRID


def test_a_patch_is_core_context_or_neither() -> None:
    share = np.array([0.0, FREE / 2, 0.3, INSIDE, 1.0], dtype=np.float32)
    assert context_patches(share).tolist() == [True, True, False, False, False]
    assert core_patches(share).tolist() == [False, False, False, True, True]
    assert context_patches(np.array([0.4, 0.9], dtype=np.float32)).tolist() == [True, False]
    assert core_patches(np.array([0.1, 0.2], dtype=np.float32)).tolist() == [False, True]


@pytest.mark.parametrize("extra", [0, 2])
def test_pool_keeps_the_mean_patch_and_predicts_the_rest(extra: int) -> None:
    random = np.random.default_rng(0)
    means = random.normal(size=(400, WIDTH)).astype(np.float32)
    other = means @ random.normal(size=(WIDTH, extra)) + 3 + 0.01 * random.normal(size=(400, extra))
    pooled = np.concatenate([other, means + 1e-4], axis=1).astype(np.float32)
    pool = Pool(pooled, means)
    assert pool.kept == WIDTH
    fresh = random.normal(size=(5, WIDTH)).astype(np.float32)
    assert (pool(fresh)[:, extra:] == fresh).all()
    assert pool(means) == pytest.approx(pooled, abs=0.1)


def test_a_pooled_feature_without_mean_patch_is_predicted_whole() -> None:
    random = np.random.default_rng(1)
    means = random.normal(size=(300, WIDTH)).astype(np.float32)
    pooled = (means @ random.normal(size=(WIDTH, 2))).astype(np.float32)
    pool = Pool(pooled, means)
    assert pool.kept == 0
    assert pool(means) == pytest.approx(pooled, abs=0.1)


def test_views_are_the_naive_means(tmp_path: Path) -> None:
    rows = posts()
    values = torch.randn(6, GRID * GRID, WIDTH, generator=torch.Generator().manual_seed(0))
    patches = Patches(tokens_file(tmp_path / "t.safetensors", values, rows["id"].to_list()), ids_digest(rows["id"].to_list()))
    pooled = values.half().float().mean(1)
    masks = [square(row, 2 + row, 9) for row in range(5)]
    table = pl.DataFrame(
        {
            "id": rows["id"][:5],
            "mask": [pack_mask(mask) for mask in masks],
            "mask_side": [SIDE] * 5,
            "v_donor": [["p1", "p3"], ["p0", "p2"]] * 2 + [["p0", "p0"]],
        }
    )
    views = patch_views(rows, table, lambda path: WHOLE, patches, pooled, torch.zeros(WIDTH))
    assert {name: tuple(value.shape) for name, value in views.items()} == {"v_s": (5, 3), "v_c": (5, 3), "v_swap": (5, 2, 3)}
    own, donor = patches[0], patches[3]
    core = core_patches(shares(inner(masks[0]), WHOLE, GRID))
    free, lent = (context_patches(shares(masks[row], WHOLE, GRID)) for row in (0, 3))
    swap = np.zeros(WIDTH)
    for cell in range(GRID * GRID):
        swap += own[cell] if core[cell] else donor[cell] if lent[cell] else donor[lent].mean(axis=0)
    expected = {"v_s": own[free].mean(axis=0), "v_c": own[core].mean(axis=0)}
    for view, value in expected.items():
        assert views[view][0].float().numpy() == pytest.approx(value, abs=2e-3)
    assert views["v_swap"][0, 1].float().numpy() == pytest.approx(swap / GRID**2, abs=2e-3)


def test_a_swap_does_not_hold_the_own_context_nor_the_donors_core(tmp_path: Path) -> None:
    rows = posts(4)
    mask = square(4, 4, 8)
    values = torch.randn(4, GRID * GRID, WIDTH, generator=torch.Generator().manual_seed(1))
    table = pl.DataFrame({"id": ["p0"], "mask": [pack_mask(mask)], "mask_side": [SIDE], "v_donor": [["p0"]]})
    table = pl.concat([table.with_columns(v_donor=pl.Series([["p1"]])), table.with_columns(id=pl.lit("p1"))])
    found = []
    outside = torch.from_numpy(~core_patches(shares(inner(mask), WHOLE, GRID)))
    inside = torch.from_numpy(~context_patches(shares(mask, WHOLE, GRID)))
    for change in (False, True):
        if change:
            values[0, outside] += 9.0
            values[1, inside] -= 9.0
        patches = Patches(tokens_file(tmp_path / f"{change}.safetensors", values, rows["id"].to_list()), ids_digest(rows["id"].to_list()))
        found.append(patch_views(rows, table, lambda path: WHOLE, patches, values.mean(1), torch.zeros(WIDTH))["v_swap"][0])
    assert torch.allclose(found[0], found[1], atol=2e-3)


def test_a_post_without_image_has_the_blank_in_every_view(tmp_path: Path) -> None:
    rows = posts(4).with_columns(image=pl.Series(["a.png", None, "c.png", "d.png"]))
    values = torch.randn(4, GRID * GRID, WIDTH)
    patches = Patches(tokens_file(tmp_path / "t.safetensors", values, rows["id"].to_list()), ids_digest(rows["id"].to_list()))
    table = pl.DataFrame(
        {"id": ["p0", "p1"], "mask": [pack_mask(square(4, 4, 8)), None], "mask_side": [SIDE, None], "v_donor": [["p0"], ["p1"]]},
        schema_overrides={"mask": pl.Binary},
    )
    blank = torch.tensor([1.0, 2.0, 3.0])
    views = patch_views(rows, table, lambda path: WHOLE, patches, values.mean(1), blank)
    for view in ("v_s", "v_c"):
        assert torch.equal(views[view][1], blank.half())
    assert torch.equal(views["v_swap"][1, 0], blank.half())


def test_patches_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    with pytest.raises(UserError, match="there are none"):
        Patches(path, "x")
    tokens_file(path, torch.zeros(2, 16, WIDTH), ["a", "b"])
    with pytest.raises(UserError, match="another manifest"):
        Patches(path, ids_digest(["b", "a"]))
    tokens_file(path, torch.zeros(2, 15, WIDTH), ["a", "b"])
    with pytest.raises(UserError, match="no square grid"):
        Patches(path, ids_digest(["a", "b"]))


def test_the_window_follows_the_shape_of_the_image(tmp_path: Path) -> None:
    """The preprocessing squeezes to a square and cuts an eighth off each side, whatever the shape; a camera's turn is undone first."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (90, 30)).save(tmp_path / "turned.jpg", exif=exif)
    seen: list[tuple[int, int]] = []

    class Seer(GreenSeer):
        def preprocess(self, image: Image.Image) -> torch.Tensor:
            seen.append(image.size)
            return super().preprocess(image)

    windows = windows_of(Encoding(Seer(), Store(tmp_path / "store", "k"), tmp_path))  # type: ignore[arg-type]
    assert windows("turned.jpg") == pytest.approx((0.125, 0.125, 0.875, 0.875), abs=0.03)
    assert set(seen) == {(85, 256)}
    count = len(seen)
    assert windows("turned.jpg") == windows("turned.jpg")
    assert len(seen) == count, "one ramp for each shape"


def test_the_stage_pools_the_views_of_an_editor_of_level_patches(checkout: Path) -> None:
    folder = tiny.save_clip(checkout / "clip")
    rows = manifest(layout.raw("mine"), 5, visual="image")
    rows.write_parquet(layout.manifest("mine"))
    edits(rows, image=True, level="patches").write_parquet(layout.counterfactuals("mine", "own"))
    Image.new("RGB", (32, 32), (90, 90, 90)).save(layout.reference_image("mine"))
    call(folder, "dual_encoder", "factual")
    with pytest.raises(UserError, match="patch features of the posts, and there are none"):
        call(folder, "dual_encoder", "own")
    call(folder, "dual_encoder", "factual", stage=tokens)
    assert call(folder, "dual_encoder", "own") == 0
    edited, metadata = read_tensors(layout.features("mine", "tiny", "own"))
    shapes = {name: tuple(value.shape) for name, value in edited.items()}
    assert shapes == {"rows": (4,), "t_s": (4, 48), "t_c": (4, 48), "t_0": (1, 48), "t_swap": (4, 2, 48)} | {
        "v_s": (4, 32),
        "v_c": (4, 32),
        "v_0": (1, 32),
        "v_swap": (4, 2, 32),
    }
    assert metadata["ids_sha256"] == ids_digest(rows["id"].to_list())
    assert all(torch.isfinite(value).all() for value in edited.values())
    first = layout.features("mine", "tiny", "own").read_bytes()
    call(folder, "dual_encoder", "own", threads="2")
    assert layout.features("mine", "tiny", "own").read_bytes() == first
    with pytest.raises(UserError, match=r"have no patches(.|\n)*editors\.own\.level"):
        call(folder, "dual_encoder", "own", stage=tokens)
    edits(rows, image=True).write_parquet(layout.counterfactuals("mine", "own"))
    call(folder, "dual_encoder", "own")
    pixels, _ = read_tensors(layout.features("mine", "tiny", "own"))
    assert torch.equal(pixels["t_swap"], edited["t_swap"])
    assert not torch.equal(pixels["v_s"], edited["v_s"])
