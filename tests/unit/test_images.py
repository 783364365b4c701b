"""Images: whatever the file holds, the answer is an upright RGB picture or a reason."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from causalroute.data.images import ImageError, check_image, image_size, open_image, resolve

NOISE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def reason(root: Path, relative: str, **limits: int) -> str:
    with pytest.raises(ImageError) as failure:
        open_image(root, relative, **limits)
    assert failure.value.where
    assert failure.value.fix
    return failure.value.reason


@pytest.mark.parametrize("relative", ["../x.png", "a/../../x.png", "/etc/hostname", "a\\x.png", "", "a\0b"])
def test_paths_stay_inside(tmp_path: Path, relative: str) -> None:
    assert reason(tmp_path, relative) == "path_outside_root"


def test_links_out_are_refused_and_links_inside_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    Image.fromarray(NOISE).save(tmp_path / "out.png")
    Image.fromarray(NOISE).save(root / "in.png")
    (root / "link.png").symlink_to(tmp_path / "out.png")
    (root / "fine.png").symlink_to("in.png")
    (root / "folder").symlink_to(tmp_path)
    assert reason(root, "link.png") == "path_outside_root"
    assert reason(root, "folder/out.png") == "path_outside_root"
    assert resolve(root, "fine.png").is_file()
    assert reason(root, "absent.png") == "missing_image"
    assert reason(root, ".") == "missing_image"


def test_bombs_text_truncation(tmp_path: Path) -> None:
    Image.new("1", (3000, 3000)).save(tmp_path / "big.png")
    assert reason(tmp_path, "big.png", max_pixels=1_000_000) == "image_too_large"
    Image.new("1", (15_000, 15_000)).save(tmp_path / "bomb.png")
    assert reason(tmp_path, "bomb.png") == "image_too_large"
    (tmp_path / "text.jpg").write_text("not an image")
    assert reason(tmp_path, "text.jpg") == "not_an_image"
    (tmp_path / "empty.jpg").write_bytes(b"")
    assert reason(tmp_path, "empty.jpg") == "not_an_image"
    Image.fromarray(NOISE).save(tmp_path / "whole.jpg")
    for share in (0.5, 0.9):
        whole = (tmp_path / "whole.jpg").read_bytes()
        (tmp_path / "cut.jpg").write_bytes(whole[: int(len(whole) * share)])
        assert reason(tmp_path, "cut.jpg") in ("corrupt_image", "not_an_image")


def test_long_and_tiny_images(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    assert reason(tmp_path, "huge.png") == "image_too_large"
    Image.new("RGB", (20_000, 150), (9, 8, 7)).save(tmp_path / "banner.png")
    assert open_image(tmp_path, "banner.png").size == (20_000, 150)
    Image.new("RGB", (1, 20_000)).save(tmp_path / "sliver.png")
    assert open_image(tmp_path, "sliver.png").size == (1, 20_000)
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "dot.png")
    assert open_image(tmp_path, "dot.png").getpixel((0, 0)) == (1, 2, 3)
    assert check_image(tmp_path, "dot.png", perceptual=True).width == 1


def test_colours_of_every_mode_survive(tmp_path: Path) -> None:
    """A clear colour is read as itself from each mode that strangers use, and what is transparent is white."""
    red = Image.new("RGB", (6, 6), (200, 20, 10))
    red.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    palette = red.convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "palette.gif")
    palette.info["transparency"] = 0
    palette.save(tmp_path / "clear.png", transparency=palette.getpixel((0, 0)))
    half = red.copy()
    half.putalpha(128)
    half.save(tmp_path / "half.webp", lossless=True)
    half.convert("LA").save(tmp_path / "grey.png")
    expected = {"cmyk.jpg": (200, 20, 10), "palette.gif": (200, 20, 10), "clear.png": (255, 255, 255), "half.webp": (227, 137, 132), "grey.png": (164,) * 3}
    for name, colour in expected.items():
        found = open_image(tmp_path, name)
        assert found.mode == "RGB"
        assert np.abs(np.array(found.getpixel((3, 3))) - colour).max() <= 6, name


def test_only_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    frames = [Image.new("P", (8, 8), colour) for colour in range(30)]
    frames[0].putpalette([10, 200, 30] + [0] * 765)
    frames[0].save(tmp_path / "long.gif", save_all=True, append_images=frames[1:], duration=20)
    assert open_image(tmp_path, "long.gif").getpixel((4, 4)) == (10, 200, 30)
    whole = (tmp_path / "long.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(whole[: len(whole) * 2 // 3])
    assert open_image(tmp_path, "cut.gif").getpixel((4, 4)) == (10, 200, 30), "cut behind the frame that counts"


def test_the_size_is_read_off_the_header(tmp_path: Path) -> None:
    exif = Image.Exif()
    for turn in range(1, 9):
        exif[0x0112] = turn
        Image.fromarray(NOISE).save(tmp_path / f"{turn}.jpg", exif=exif)
        assert image_size(tmp_path, f"{turn}.jpg") == open_image(tmp_path, f"{turn}.jpg").size
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(ImageError) as failure:
        image_size(tmp_path, "text.jpg")
    assert failure.value.reason == "not_an_image"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 2000), byte=st.integers(0, 255), kind=st.sampled_from(["PNG", "GIF", "WEBP", "TIFF", "BMP"]))
def test_damaged_bytes_never_escape_as_other_exceptions(tmp_path: Path, place: int, byte: int, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    Image.fromarray(NOISE[:8, :8]).save(path, format=kind)
    raw = bytearray(path.read_bytes())
    raw[place % len(raw)] = byte
    path.write_bytes(raw)
    try:
        answer = open_image(tmp_path, path.name).mode
    except ImageError as error:
        answer = error.reason
    assert answer in ("RGB", "corrupt_image", "not_an_image", "image_too_large")


def test_orientation_first_frame_transparency_depth(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # camera held upright: stored lying
    Image.fromarray(NOISE).save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path, "turned.jpg").size == (40, 60)
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert open_image(tmp_path, "moving.gif").getpixel((0, 0)) == (255, 0, 0)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_image(tmp_path, "clear.png").getpixel((0, 0)) == (255, 255, 255)
    Image.fromarray(np.full((4, 4), 32896, np.uint16)).save(tmp_path / "deep.png")
    assert open_image(tmp_path, "deep.png").getpixel((0, 0)) == (128, 128, 128)
    for mode in ("L", "P", "CMYK", "1", "LA"):
        path = tmp_path / f"{mode}.tiff"
        Image.fromarray(NOISE).convert("L" if mode == "LA" else mode).convert(mode).save(path)
        assert open_image(tmp_path, path.name).mode == "RGB"


def test_check_image(tmp_path: Path) -> None:
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    checked = check_image(tmp_path, "a.png", perceptual=True)
    assert checked.sha256 == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert (checked.width, checked.height) == (60, 40)
    Image.fromarray(NOISE).resize((120, 80)).save(tmp_path / "b.jpg", quality=90)
    other = check_image(tmp_path, "b.jpg", perceptual=True)
    assert checked.perceptual is not None
    assert other.perceptual is not None
    assert (checked.perceptual ^ other.perceptual).bit_count() <= 6
    assert check_image(tmp_path, "a.png").perceptual is None


def test_no_torch() -> None:
    names = "images, manifest, splits, duplicates, sources, formats, formats.mvsa, formats.mmsd, formats.table, formats.planted"
    load = f"for name in '{names}'.split(', '):\n    __import__('causalroute.data.' + name)"
    code = f"import sys\n{load}\nassert not {{'torch', 'sklearn', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"})
