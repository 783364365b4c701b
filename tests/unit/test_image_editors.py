from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.unit.test_lexicon import make

from causalroute.config import Editor
from causalroute.counterfactual.build import COLUMNS, build, reference_of
from causalroute.counterfactual.image import centre, edit, edit_images, maps, random, refine, saliency, truth, vanilla
from causalroute.counterfactual.image.edit import background_lean
from causalroute.counterfactual.image.refine import core_masks
from causalroute.counterfactual.pixels import unpack_mask
from causalroute.counterfactual.sources import Sources
from causalroute.errors import UserError
from causalroute.features.window import crop_window

SIDE = 32


def disc(x: float, y: float, radius: float, side: int = SIDE) -> np.ndarray:
    at = (np.arange(side) + 0.5) / side
    return (at[None, :] - x) ** 2 + (at[:, None] - y) ** 2 <= radius**2


def picture(x: float, y: float, radius: float, warm: bool, side: int = 64) -> Image.Image:
    """A green disc on warm or cool stripes."""
    colours = np.array([[[220, 120, 40], [180, 80, 20]], [[40, 90, 220], [20, 60, 170]]], dtype=np.uint8)[0 if warm else 1]
    pixels = np.broadcast_to(colours[(np.arange(side) // 4) % 2][:, None], (side, side, 3)).copy()
    pixels[disc(x, y, radius, side)] = (60, 220, 90)
    return Image.fromarray(pixels)


class GreenSeer:
    """A backbone that answers to green; its preprocessing cuts an eighth off each side, as centre crops do."""

    image_batch = 16

    def __init__(self, crop: int = 8) -> None:
        self.crop = crop

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        small = image.resize((64, 64), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1).float() / 255
        return (pixels[:, self.crop : 64 - self.crop, self.crop : 64 - self.crop] - 0.5) / 0.25

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        green = torch.relu(pixels[:, 1] - torch.maximum(pixels[:, 0], pixels[:, 2]))
        return torch.stack([green.mean((1, 2)), pixels.mean((1, 2, 3))], 1)


def iou(one: np.ndarray, two: np.ndarray) -> float:
    return float((one & two).sum() / (one | two).sum())


PLACES = [(0.35, 0.4, 0.2), (0.6, 0.6, 0.25), (0.5, 0.35, 0.18), (0.65, 0.4, 0.22)]


@pytest.mark.parametrize("crop", [0, 8])
def test_saliency_finds_what_the_backbone_answers_to(crop: int) -> None:
    images = [picture(*place, warm=bool(i % 2)) for i, place in enumerate(PLACES)]
    seer = GreenSeer(crop)
    directions = torch.tensor([[1.0, 0.0]]).expand(len(images), 2)

    def heat(pixels: torch.Tensor, rows: list[int]) -> torch.Tensor:
        return saliency.gradient_times_input(seer.encode_images, pixels, directions[rows])

    masks, small = maps.find_cores(seer, images.__getitem__, len(images), heat, 0.3, SIDE)  # type: ignore[arg-type]
    assert small.shape == (4, SIDE, SIDE, 3)
    seer.image_batch = 1
    alone, _ = maps.find_cores(seer, images.__getitem__, len(images), heat, 0.3, SIDE, threads=3)  # type: ignore[arg-type]
    assert (alone == masks).all()
    for mask, place in zip(masks, PLACES, strict=True):
        core = disc(*place)
        assert iou(mask, core) > 0.45
        assert (mask & core).sum() / core.sum() > 0.9


def test_the_crop_of_any_preprocessing_is_read_off_a_ramp() -> None:
    window = crop_window(GreenSeer(8), (64, 64))  # type: ignore[arg-type]
    assert window == pytest.approx((0.125, 0.125, 0.875, 0.875), abs=0.02)
    heat = maps.place(torch.ones(1, 48, 48), window, 16)
    assert heat.shape == (1, 16, 16)
    assert (heat[0, 2:14, 2:14] == 1).all()
    assert heat.sum() == 144


def test_gradient_times_input_is_the_naive_one() -> None:
    weight = torch.tensor([[2.0, -1.0, 0.5]])
    pixels = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))

    def encode(x: torch.Tensor) -> torch.Tensor:
        return (x.mean((2, 3)) * weight).sum(1, keepdim=True)

    found = saliency.gradient_times_input(encode, pixels, torch.tensor([[1.0], [-3.0]]))
    expected = (pixels * weight[0][None, :, None, None] / 25).abs().sum(1) * torch.tensor([1.0, 3.0])[:, None, None]
    assert torch.allclose(found, expected)


def test_wide_images_are_squeezed_whole() -> None:
    assert maps.squeeze(Image.new("RGB", (100, 40))).size == (100, 100)
    assert maps.squeeze(Image.new("RGB", (400, 900))).size == (maps.SQUARE, maps.SQUARE)


def test_the_interaction_points_at_the_feature_that_needs_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """label = [text sign != image sign]; the second image feature is a shortcut that needs no text, the third is noise."""
    monkeypatch.setattr(vanilla, "STEPS", 250)
    random_numbers = np.random.default_rng(0)
    a, b = random_numbers.choice([-1.0, 1.0], (2, 600))
    labels = (a != b).astype(int)
    noise = random_numbers.normal(size=(600, 3)) * 0.2
    text = torch.from_numpy(np.stack([a, noise[:, 0]], 1)).float()
    image = torch.from_numpy(np.stack([b, labels + noise[:, 1], noise[:, 2]], 1)).float()
    posts = make(["x"] * 600, labels.tolist())
    one, two = (vanilla.train_vanilla(posts, text, image, 0).gradients() for _ in range(2))
    assert torch.equal(one, two)
    scaled = (one * image.std(0)).abs().mean(0)
    assert scaled[0] > 2 * scaled[1]
    assert scaled[0] > 2 * scaled[2]


def test_a_core_mask_is_one_piece_without_holes_and_colour_sets_its_size() -> None:
    random_numbers = np.random.default_rng(0)
    images = [picture(*place, warm=True) for place in PLACES]
    small = np.stack([np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)) for image in images])
    truths = np.stack([disc(*place) for place in PLACES])
    blurred = np.stack([np.clip(disc(x, y, 0.1) * 1.0, 0.05, 1) for x, y, _ in PLACES]) + random_numbers.random((4, SIDE, SIDE)) * 0.02
    masks = core_masks(blurred, small, 0.4)
    flat = core_masks(blurred, np.full_like(small, 90), 0.4)
    for mask, plain, core in zip(masks, flat, truths, strict=True):
        assert iou(mask, core) > max(0.5, iou(plain, core))


def test_colours_told_anew_leave_less_background_in_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [picture(*place, warm=True) for place in PLACES]
    small = np.stack([np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)) for image in images])
    truths = np.stack([disc(*place) for place in PLACES])
    heat = np.stack([np.clip(disc(x, y, 0.1) * 1.0, 0.05, 1) for x, y, _ in PLACES])
    twice = core_masks(heat, small, 0.4)
    monkeypatch.setattr(refine, "ROUNDS", 1)
    once = core_masks(heat, small, 0.4)
    assert (twice & ~truths).sum() <= (once & ~truths).sum()
    assert (twice & truths).sum() > 0.9 * truths.sum()


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_any_map_gives_some_core(seed: int) -> None:
    numbers = np.random.default_rng(seed)
    masks = core_masks(numbers.random((2, 16, 16)), numbers.integers(0, 256, (2, 16, 16, 3)).astype(np.uint8), 0.3)
    assert masks.any(axis=(1, 2)).all()


def test_a_map_without_any_heat_raises_no_alarm() -> None:
    assert core_masks(np.zeros((1, 16, 16)), np.zeros((1, 16, 16, 3), dtype=np.uint8), 0.3).shape == (1, 16, 16)


def test_random_cores_have_the_share_and_depend_on_the_id_alone() -> None:
    masks = random.find_cores(["a", "b", "c"], 0.25, SIDE, 0)
    assert masks.mean(axis=(1, 2)) == pytest.approx([0.25] * 3, abs=0.02)
    assert (masks[1:] == random.find_cores(["b", "c"], 0.25, SIDE, 0)).all()
    assert (masks[0] != random.find_cores(["a"], 0.25, SIDE, 1)[0]).any()


def test_the_centre_is_a_disc_in_the_middle_for_everyone() -> None:
    masks = centre.find_cores(3, 0.25, SIDE)
    assert masks.shape == (3, SIDE, SIDE)
    assert masks.mean() == pytest.approx(0.25, abs=0.02)
    assert iou(masks[0], disc(0.5, 0.5, (0.25 / np.pi) ** 0.5)) == 1.0
    assert (masks[0] == masks[2]).all()
    assert (masks[0] == masks[0][::-1, ::-1]).all()


def test_true_cores_fill_their_box() -> None:
    known = pl.DataFrame({"id": ["b", "a"], "core_box": [[0.0, 0.0, 32.0, 64.0], [16.0, 16.0, 48.0, 48.0]], "image_size": [64, 64]})
    masks = truth.find_cores(["a", "b"], known, SIDE)
    assert iou(masks[0], disc(0.5, 0.5, 0.25)) == 1.0
    assert masks[1][:, SIDE // 2 :].sum() == 0
    with pytest.raises(UserError, match="1 posts have no known truth"):
        truth.find_cores(["a", "nobody"], known, SIDE)


def test_donors_lend_another_background() -> None:
    labels = [i % 2 for i in range(60)]
    warm = [label == (0 if i // 2 % 5 else 1) for i, label in enumerate(labels)]
    posts = make(["x"] * 60, labels)
    small = np.stack([np.asarray(picture(0.5, 0.5, 0.2, flag, SIDE)) for flag in warm])
    masks = np.stack([disc(0.5, 0.5, 0.2)] * 60)
    assert background_lean(posts, masks, small).tolist() == [0 if flag else 1 for flag in warm]
    table = edit_images(posts, masks, small, 2, 0, "mean")
    for row, donors in enumerate(table["v_donor"].to_list()):
        for donor in donors:
            assert labels[int(donor[1:])] != labels[row]
            assert warm[int(donor[1:])] != warm[row]
    assert table["image_ok"].all()
    assert (unpack_mask(table["mask"][0], SIDE) == masks[0]).all()


def test_backgrounds_lean_the_same_however_many_are_looked_at_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    random_numbers = np.random.default_rng(0)
    posts = make(["x"] * 50, [i % 3 for i in range(50)])
    masks, small = random_numbers.random((50, 16, 16)) < 0.4, random_numbers.integers(0, 256, (50, 16, 16, 3)).astype(np.uint8)
    whole = background_lean(posts, masks, small)
    monkeypatch.setattr(edit, "CHUNK", 7)
    assert (background_lean(posts, masks, small) == whole).all()


def test_a_mask_that_found_nothing_is_not_usable_and_does_not_lend() -> None:
    posts = make(["x"] * 4, [0, 1, 0, 1])
    masks = np.stack([disc(0.5, 0.5, 0.2), disc(0.5, 0.5, 0.2), np.ones((SIDE, SIDE), dtype=bool), np.zeros((SIDE, SIDE), dtype=bool)])
    table = edit_images(posts, masks, np.zeros((4, SIDE, SIDE, 3), dtype=np.uint8), 2, 0, "mean")
    assert table["image_ok"].to_list() == [True, True, False, False]
    assert table["v_donor"].to_list() == [["p1", "p1"], ["p0", "p0"], ["p1", "p1"], ["p0", "p0"]]


def folder(root: Path) -> pl.DataFrame:
    rows = []
    for i in range(40):
        picture(*PLACES[i % 4], warm=bool(i % 2)).save(root / f"{i}.png")
        split = "oracle_train" if i >= 36 else "id" if i >= 30 else "train"
        rows.append({"id": f"p{i}", "split": split, "text": f"bus {'#a' if i % 2 else '#b'}", "image": f"{i}.png", "label": i % 2 if split != "id" else None})
    return pl.DataFrame(rows).with_columns(attributes=pl.lit(None, pl.String), image_sha256=pl.col("image"))


def test_build_writes_every_column_for_every_post_but_the_oracles(tmp_path: Path) -> None:
    manifest = folder(tmp_path)
    table = build(manifest, Editor(text="random", image="random"), Sources(tmp_path))
    assert table.columns == list(COLUMNS)
    assert table.schema == pl.Schema(COLUMNS)
    assert table["id"].to_list() == [f"p{i}" for i in range(36)]
    assert table["attr_s"].null_count() == 36
    donors = {donor for column in ("t_donor", "v_donor") for found in table[column].to_list() for donor in found}
    assert donors <= {f"p{i}" for i in range(30)}
    assert table["level"].unique().to_list() == ["pixels"]
    assert reference_of(manifest, tmp_path).size == (128, 128)


def test_attribute_words_are_edited_like_texts(tmp_path: Path) -> None:
    manifest = folder(tmp_path).with_columns(image=pl.lit(None, pl.String), attributes=pl.col("text"))
    table = build(manifest, Editor(text="lexicon", image="saliency", z=0.5), Sources(tmp_path))
    assert table["level"].null_count() == 36
    assert table["attr_s"][0] == "[MASK] #b"
    assert table["attr_swap"].to_list()[0] == ["bus #a", "bus #a"]
    assert table["image_ok"].all()
    assert table["mask"].null_count() == 36
    assert reference_of(manifest, tmp_path).getpixel((0, 0)) == (128, 128, 128)


def test_what_an_editor_lacks_is_told(tmp_path: Path) -> None:
    manifest = folder(tmp_path)
    with pytest.raises(UserError, match="'truth' needs known truth"):
        build(manifest, Editor(text="lexicon", image="truth"), Sources(tmp_path))
    with pytest.raises(UserError, match="needs a backbone"):
        build(manifest, Editor(text="lexicon", image="saliency"), Sources(tmp_path))
