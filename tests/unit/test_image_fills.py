"""Fills and views: inpainting, odd images, and which fill a donor's background gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.unit.test_image_editors import GreenSeer, disc, picture
from tests.unit.test_pixels import box_mask, striped

from causalroute.config import Editor
from causalroute.counterfactual.build import build
from causalroute.counterfactual.fills import BLANK, SIDE, telea
from causalroute.counterfactual.image import maps, saliency
from causalroute.counterfactual.pixels import fill_core, pack_mask, spread
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.views import SLIVER, SWAP_FILL, ImageInput, view_inputs
from causalroute.data.images import open_image


def test_telea_fills_the_core_and_nothing_else() -> None:
    image, mask = striped((90, 70)), box_mask()
    pixels = np.asarray(image).copy()
    core = spread(mask, image.size)
    pixels[core] = (0, 255, 0)
    filled = np.asarray(fill_core(Image.fromarray(pixels), mask, "telea"))
    assert (filled[~core] == pixels[~core]).all()
    assert filled[core][:, 1].max() < 160, "no green is left"


def test_telea_carries_an_edge_into_the_hole() -> None:
    """Two flat halves: the flat mean is wrong everywhere, the inpainted edge goes on."""
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[:, 32:] = (200, 180, 40)
    mask = box_mask(16, 6, 10)
    core = spread(mask, (64, 64))
    error = {fill: np.abs(np.asarray(fill_core(Image.fromarray(pixels), mask, fill)).astype(int) - pixels)[core].mean() for fill in ("mean", "telea")}
    assert error["telea"] < 0.3 * error["mean"]


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_telea_never_reads_the_core(seed: int, width: int, height: int) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    core = random.random((height, width)) < 0.4
    other = pixels.copy()
    other[core] = random.integers(0, 256, (int(core.sum()), 3))
    one, two = (np.asarray(telea(Image.fromarray(values), core)) for values in (pixels, other))
    assert one.shape == pixels.shape
    assert (one == two).all()


def test_telea_of_large_holes_and_large_images() -> None:
    image = Image.new("RGB", (900, 30), (12, 130, 250))
    flat = np.asarray(telea(image, spread(box_mask(), image.size)))
    assert (np.abs(flat.astype(int) - (12, 130, 250)) <= 5).all()
    assert telea(image, np.ones((30, 900), dtype=bool)).getpixel((5, 5)) == BLANK
    dots = np.ones((1000, 1000), dtype=bool)
    dots[:: 1000 // SIDE, :: 1000 // SIDE] = False  # every cell of the small copy holds some core
    assert telea(Image.new("RGB", (1000, 1000), (9, 8, 7)), dots).getpixel((500, 500)) == (9, 8, 7)


def test_telea_says_the_same_each_time_of_an_image_of_one_row() -> None:
    random = np.random.default_rng(53)
    for size in ((31, 1), (1, 31), (2, 2)):
        image = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8))
        core = random.random((size[1], size[0])) < 0.4
        found = set()
        for attempt in range(40):
            junk = [np.full(500 + 100 * attempt, np.nan, np.float32) for _ in range(5)]
            del junk
            found.add(telea(image, core).tobytes())
        assert len(found) == 1


def test_a_sliver_is_stretched_before_a_backbone_scales_it(tmp_path: Path) -> None:
    Image.new("RGB", (20_000, 3), (5, 6, 7)).save(tmp_path / "wide.png")
    Image.new("RGB", (9, 18)).save(tmp_path / "plain.png")
    loaded = ImageInput("wide.png", "1").load(tmp_path)
    assert loaded.size == (20_000, 20_000 // SLIVER)
    assert loaded.getpixel((10, 50)) == (5, 6, 7)
    assert ImageInput("plain.png", "2").load(tmp_path).size == (9, 18)


def posts(root: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    for name, warm in (("a", True), ("b", False)):
        picture(0.5, 0.5, 0.25, warm).save(root / f"{name}.png")
    manifest = pl.DataFrame({"id": ["a", "b"], "text": ["x", "y"], "image": ["a.png", "b.png"], "image_sha256": ["1", "2"], "attributes": [None, None]})
    bits = pack_mask(disc(0.5, 0.5, 0.3))
    table = pl.DataFrame({"id": ["a", "b"], "mask": [bits, bits], "mask_side": [32, 32], "v_donor": [["b"], ["a"]], "fill": ["mean", "mean"]})
    return manifest, table


def test_the_donors_background_is_painted_in_where_the_editor_paints_in(tmp_path: Path) -> None:
    manifest, table = posts(tmp_path)
    fills, swaps = {}, {}
    for fill in ("mean", "blur", "telea"):
        (item, _) = view_inputs(manifest, table.with_columns(fill=pl.lit(fill)), "v_swap")
        fills[fill], swaps[fill] = item.fill, item.load(tmp_path).tobytes()  # type: ignore[union-attr]
    assert fills == {"mean": SWAP_FILL, "blur": SWAP_FILL, "telea": "telea"}
    assert swaps["mean"] == swaps["blur"] != swaps["telea"]
    keys = {view_inputs(manifest, table.with_columns(fill=pl.lit(fill)), "v_s")[0].content_key() for fill in fills}
    assert len(keys) == 3


@pytest.mark.parametrize("fill", ["mean", "blur", "telea"])
def test_odd_images_get_every_view(tmp_path: Path, fill: str) -> None:
    """One pixel, a banner, a grey scale, a palette with transparency, CMYK: the core is found and cut out of each."""
    sizes = {"dot.png": (1, 1), "banner.png": (4000, 40), "tall.png": (3, 300), "grey.png": (50, 30), "clear.gif": (20, 20), "ink.jpg": (33, 21)}
    for name, size in sizes.items():
        mode = {"grey.png": "L", "clear.gif": "P", "ink.jpg": "CMYK"}.get(name, "RGB")
        Image.new(mode, size, 7 if mode in "LP" else None).save(tmp_path / name)  # type: ignore[arg-type]
    names = [*sizes] * 4
    manifest = pl.DataFrame(
        {
            "id": [f"p{row}" for row in range(24)],
            "split": "train",
            "text": ["sun #a", "rain #b"] * 12,
            "image": names,
            "label": [0, 1] * 12,
            "image_sha256": names,
        }
    ).with_columns(attributes=pl.lit(None, pl.String))
    table = build(manifest, Editor(text="lexicon", image="centre", fill=fill), Sources(tmp_path))  # type: ignore[arg-type]
    assert table["image_ok"].all()
    assert table["level"].unique().to_list() == ["pixels"]
    for view in ("v_s", "v_c", "v_swap"):
        for item in view_inputs(manifest, table, view)[:6]:
            assert item.load(tmp_path).size == sizes[item.path]  # type: ignore[union-attr]
    seer = GreenSeer()
    masks, _ = maps.find_cores(
        seer,  # type: ignore[arg-type]
        lambda row: open_image(tmp_path, names[row]),
        6,
        lambda pixels, rows: saliency.gradient_times_input(seer.encode_images, pixels, pixels.new_ones(len(rows), 2)),
        0.3,
        16,
    )
    assert masks.any(axis=(1, 2)).all()
