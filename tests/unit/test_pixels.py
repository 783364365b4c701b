from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from causalroute.counterfactual.pixels import (
    GREY,
    LEAST,
    REFERENCE_SIDE,
    RIM,
    background_of,
    fill_core,
    inner,
    inpaint,
    isolate_core,
    pack_mask,
    reference,
    spread,
    transplant,
    unpack_mask,
)
from causalroute.errors import UserError


def striped(size: tuple[int, int] = (40, 32), colours: tuple[tuple[int, int, int], tuple[int, int, int]] = ((200, 100, 0), (240, 140, 40))) -> Image.Image:
    width, height = size
    rows = (np.arange(height) // 4) % 2
    return Image.fromarray(np.broadcast_to(np.array(colours, dtype=np.uint8)[rows][:, None], (height, width, 3)).copy())


def box_mask(side: int = 8, low: int = 2, high: int = 5) -> np.ndarray:
    mask = np.zeros((side, side), dtype=bool)
    mask[low:high, low:high] = True
    return mask


@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_masks_survive_packing(side: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((side, side)) < 0.5
    assert (unpack_mask(pack_mask(mask), side) == mask).all()


def test_a_mask_of_another_size_is_told() -> None:
    with pytest.raises(UserError, match="does not fit"):
        unpack_mask(pack_mask(box_mask(8)), 9)


@given(st.integers(1, 12), st.integers(1, 30), st.integers(1, 30), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_spread_is_nearest_cell(side: int, width: int, height: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((side, side)) < 0.5
    wide = spread(mask, (width, height))
    assert wide.shape == (height, width)
    for y in range(height):
        for x in range(width):
            assert wide[y, x] == mask[y * side // height, x * side // width]


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_fill_changes_the_core_and_nothing_else(fill: str) -> None:
    image, mask = striped(), box_mask()
    pixels = np.asarray(image).copy()
    core = spread(mask, image.size)
    pixels[core] = (0, 255, 0)
    filled = np.asarray(fill_core(Image.fromarray(pixels), mask, fill))
    assert (filled[~core] == pixels[~core]).all()
    assert (filled[core] != (0, 255, 0)).any(axis=-1).all()


def test_mean_fill_is_the_mean_of_the_outside() -> None:
    image, mask = striped(), box_mask()
    core = spread(mask, image.size)
    expected = np.asarray(image)[~core].mean(axis=0).round()
    assert (np.asarray(fill_core(image, mask, "mean"))[core] == expected).all()


def test_unknown_fill_is_told() -> None:
    with pytest.raises(UserError, match="unknown fill 'pattern'"):
        fill_core(striped(), box_mask(), "pattern")


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_inpainting_stays_within_the_known_colours_and_ignores_the_hole(seed: int) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(60, 190, (20, 27, 3)).astype(np.uint8)
    core = random.random((20, 27)) < 0.4
    other = pixels.copy()
    other[core] = random.integers(0, 256, (int(core.sum()), 3))
    one, two = (np.asarray(inpaint(Image.fromarray(values), core)) for values in (pixels, other))
    assert (one == two).all()
    if not core.all():
        known = pixels[~core]
        assert (one >= known.min(axis=0) - 1).all()
        assert (one <= known.max(axis=0) + 1).all()


def test_inpainting_a_flat_image_is_flat() -> None:
    image = Image.new("RGB", (200, 90), (12, 130, 250))
    core = spread(box_mask(), image.size)
    assert (np.asarray(inpaint(image, core)) == (12, 130, 250)).all()


def test_inpainting_follows_a_ramp_better_than_the_mean() -> None:
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    mask = box_mask(8, 2, 6)
    core = spread(mask, (64, 64))
    error = {fill: np.abs(np.asarray(fill_core(Image.fromarray(ramp), mask, fill)).astype(int) - ramp)[core].mean() for fill in ("mean", "blur")}
    assert error["blur"] < 0.3 * error["mean"]


@given(st.integers(1, 14), st.floats(0, 1), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_inner_core_is_the_mask_less_at_most_its_rim(side: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((side, side)) < share
    core = inner(mask)
    assert not (core & ~mask).any()
    assert core.sum() >= LEAST * mask.sum()
    assert core.any() == mask.any()


def test_the_rim_is_lost_on_every_side_but_the_border_of_the_image() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[:12, 4:18] = True
    expected = np.zeros_like(mask)
    expected[: 12 - RIM, 4 + RIM : 18 - RIM] = True
    assert (inner(mask) == expected).all()
    assert inner(np.ones((9, 9), dtype=bool)).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_core_too_small_keeps_its_rim(size: int) -> None:
    mask = box_mask(8, 2, 2 + size)
    assert (inner(mask) == mask).all()


def test_a_core_alone_does_not_depend_on_its_background() -> None:
    random = np.random.default_rng(0)
    mask = box_mask(16, 3, 13)
    one, two = random.integers(0, 256, (2, 48, 40, 3)).astype(np.uint8)
    core = spread(inner(mask), (40, 48))
    two[core] = one[core]
    alone = [np.asarray(isolate_core(Image.fromarray(pixels), mask)) for pixels in (one, two)]
    assert (alone[0] == alone[1]).all()
    assert (alone[0][core] == one[core]).all()
    assert (alone[0][~core] == GREY).all()


def test_a_swap_does_not_depend_on_the_own_background_nor_on_the_rim() -> None:
    random = np.random.default_rng(1)
    mask, donor_mask = box_mask(16, 3, 13), box_mask(16, 1, 6)
    one, two = random.integers(0, 256, (2, 48, 40, 3)).astype(np.uint8)
    core = spread(inner(mask), (40, 48))
    two[core] = one[core]
    donor = Image.fromarray(random.integers(0, 256, (30, 50, 3)).astype(np.uint8))
    swaps = [transplant(Image.fromarray(pixels), mask, background_of(donor, donor_mask, (40, 48), "blur")) for pixels in (one, two)]
    assert swaps[0].tobytes() == swaps[1].tobytes()
    assert core.sum() < spread(mask, (40, 48)).sum()
    assert (np.asarray(swaps[0])[core] == one[core]).all()


def test_a_transplant_has_own_core_and_foreign_background() -> None:
    image, donor = striped(), striped((80, 80), ((0, 0, 200), (40, 40, 240)))
    pixels = np.asarray(image).copy()
    mask, donor_mask = box_mask(8, 1, 3), box_mask(8, 4, 7)
    pixels[spread(mask, image.size)] = (0, 255, 0)
    foreign = np.asarray(donor).copy()
    foreign[spread(donor_mask, donor.size)] = (255, 0, 0)
    swapped = np.asarray(transplant(Image.fromarray(pixels), mask, background_of(Image.fromarray(foreign), donor_mask, image.size, "blur")))
    core = spread(mask, image.size)
    assert swapped.shape == pixels.shape
    assert (swapped[core] == (0, 255, 0)).all()
    assert swapped[~core][:, 0].max() < 130, "neither the own stripes nor the donor's red core may show"


def test_the_reference_is_the_blurred_mean() -> None:
    pair = [Image.new("RGB", (30, 20), (0, 0, 0)), Image.new("RGB", (50, 70), (200, 100, 50))]
    mean = reference(iter(pair))
    assert mean.size == (REFERENCE_SIDE, REFERENCE_SIDE)
    assert (np.asarray(mean) == (100, 50, 25)).all()
    with pytest.raises(UserError, match="no image"):
        reference([])
