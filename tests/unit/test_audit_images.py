"""What is read off an image file, and files that nobody should trust."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from causalroute.audit import images
from causalroute.audit.images import NAMES, Seen, inspect, look
from causalroute.data.images import ImageError


def photo(side: int = 300, seed: int = 0) -> Image.Image:
    """Smooth noise, as photos are to an encoder."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side * 4 // 3, side), Image.Resampling.BICUBIC)


def number(seen: Seen, name: str) -> float:
    return seen.numbers[NAMES.index(name)]


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90, 98])
def test_jpeg_quality_is_the_one_it_was_saved_with(tmp_path: Path, quality: int) -> None:
    photo().save(tmp_path / "a.jpg", quality=quality)
    assert number(look(tmp_path, "a.jpg"), "JPEG quality") == pytest.approx(quality, abs=1)


def test_facts_of_files(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 6
    photo().save(tmp_path / "a.jpg", exif=exif, progressive=True, icc_profile=b"profile")
    seen = look(tmp_path, "a.jpg")
    assert {"format JPEG", "mode RGB", "has EXIF", "progressive", "has colour profile", "size 300 x 400"} <= seen.facts, "upright: EXIF turns it"
    photo().convert("L").save(tmp_path / "b.png")
    grey = look(tmp_path, "b.png")
    assert {"format PNG", "mode L", "grey picture", "size 400 x 300"} == grey.facts
    assert np.isnan(number(grey, "JPEG quality"))
    photo(60).save(tmp_path / "c.gif", save_all=True, append_images=[photo(60, 1)])
    assert {"format GIF", "animated"} <= look(tmp_path, "c.gif").facts
    photo().convert("CMYK").save(tmp_path / "d.jpg")
    assert "mode CMYK" in look(tmp_path, "d.jpg").facts
    photo().convert("RGBA").save(tmp_path / "e.png")
    assert {"format PNG", "mode RGBA"} <= look(tmp_path, "e.png").facts


def test_colours_and_size(tmp_path: Path) -> None:
    Image.new("RGB", (90, 60), (200, 100, 0)).save(tmp_path / "a.png")
    seen = look(tmp_path, "a.png")
    values = {name: number(seen, name) for name in NAMES}
    assert (values["warmth"], values["greenness"], values["saturation"], values["contrast"]) == (200, 0, 200, 0)
    assert (values["width"], values["height"], values["aspect"], values["edges"], values["text-like"]) == (90, 60, 1.5, 0, 0)
    assert values["kilobytes"] == (tmp_path / "a.png").stat().st_size / 1024


def test_lettering_raises_the_text_statistic(tmp_path: Path) -> None:
    plain = photo(400)
    written = plain.copy()
    draw = ImageDraw.Draw(written)
    font = ImageFont.load_default(30)
    for line in range(4):
        draw.text((20, 30 + 80 * line), "when you read the text", fill="white", stroke_width=2, stroke_fill="black", font=font)
    plain.save(tmp_path / "plain.png")
    written.save(tmp_path / "written.png")
    without, with_text = (number(look(tmp_path, name), "text-like") for name in ("plain.png", "written.png"))
    assert with_text > without + 0.05


def test_a_big_jpeg_is_decoded_small_and_says_the_same(tmp_path: Path) -> None:
    photo(2400).save(tmp_path / "big.jpg", quality=95)
    photo(2400).save(tmp_path / "big.png")
    small, full = look(tmp_path, "big.jpg"), look(tmp_path, "big.png")
    assert images._pixels(tmp_path, "big.jpg").width < 500
    assert number(small, "width") == number(full, "width") == 3200
    for name in ("warmth", "brightness", "saturation", "contrast"):
        assert number(small, name) == pytest.approx(number(full, name), abs=3)
    assert (small.perceptual ^ full.perceptual).bit_count() <= 4


def test_strange_files_are_listed_and_not_read(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    Image.new("1", (20_000, 3)).save(tmp_path / "wide.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    photo().save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
    (tmp_path / "text.jpg").write_text("<html>not found</html>")
    (tmp_path / "empty.png").write_bytes(b"")
    names = ["one.png", "wide.png", "bomb.png", "cut.jpg", "text.jpg", "empty.png", "gone.png", "../x.png", None, "one.png"]
    looks = inspect(tmp_path, names)
    reasons = [look.reason if isinstance(look, ImageError) else "" for look in looks]
    assert reasons == ["", "", "image_too_large", "corrupt_image", "not_an_image", "not_an_image", "missing_image", "path_outside_root", "", ""]
    assert looks[8] is None
    assert isinstance(looks[0], Seen)
    assert looks[0] == dataclasses.replace(looks[0]) == looks[9] or np.isnan(looks[0].numbers).any()
    table = images.table(looks)
    assert table.shape == (10, len(NAMES))
    assert np.isnan(table[3:9]).all()
    assert np.isfinite(table[0][:9]).all()
