"""Images of strangers, opened safely: no path leaves the root, no bomb is unpacked, nothing half-read passes as whole.

The first frame of an animation counts; the camera's orientation is applied; transparency is laid on white.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps

from causalroute.data.overlays import draw
from causalroute.errors import UserError
from causalroute.io import sha256_file

MAX_PIXELS = 64_000_000  # a 24-bit image of this size takes 192 MB; a post's photo has at most a tenth of it
ORIENTATION, QUARTER_TURNS = 0x0112, 5  # EXIF tag; values from 5 on swap width and height
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")


class ImageError(UserError):
    """An image that cannot be used; `reason` is the word that dropped.csv gets."""

    def __init__(self, reason: str, what: str, *, where: str, fix: str) -> None:
        super().__init__(what, where=where, fix=fix)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a sound image file is: its content hash and its size in pixels."""

    sha256: str
    """of the file's bytes"""
    width: int
    """pixels, after orientation"""
    height: int
    """pixels, after orientation"""
    perceptual: int | None
    """64-bit perceptual hash where asked for"""


def resolve(root: str | Path, relative: str) -> Path:
    """The file `relative` (posix path) under `root`.

    Raises:
        ImageError: the path is absolute, climbs out of `root` (also through a link), or names no file.
    """
    root = Path(root)
    pure = PurePosixPath(relative)
    path = root / pure
    where = f"{relative!r} under {root}"
    if not relative or pure.is_absolute() or ".." in pure.parts or "\\" in relative or "\0" in relative or not path.resolve().is_relative_to(root.resolve()):
        raise ImageError(
            "path_outside_root",
            "the image path leaves the data folder",
            where=where,
            fix="write image paths relative to the raw folder, without '..', with '/'",
        )
    if not path.is_file():
        raise ImageError("missing_image", "there is no such image file", where=where, fix="check the image column and that all images were fetched")
    return path


def open_image(root: str | Path, relative: str, max_pixels: int = MAX_PIXELS, overlay: str | None = None) -> Image.Image:
    """The image at `relative` under `root`, decoded, upright, mode RGB, with its mark where injected data give it one.

    Args:
        root: the data set's raw folder.
        relative: posix path inside it.
        max_pixels: width x height above which the file is refused before any pixel is decoded.
        overlay: the mark that is drawn on it (`overlays.py`); none where null or empty.

    Raises:
        ImageError: with `.reason` path_outside_root, missing_image, not_an_image, image_too_large or corrupt_image.
    """
    path = resolve(root, relative)
    return draw(_decoded(path, max_pixels), overlay or "")


def _decoded(path: Path, max_pixels: int) -> Image.Image:
    try:
        with Image.open(path, formats=FORMATS) as image:
            return upright(image, max_pixels, where=str(path))
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(str(path), str(error)) from None
    except Image.UnidentifiedImageError:
        raise ImageError("not_an_image", "the file is not an image", where=str(path), fix=f"formats read: {', '.join(FORMATS)}") from None
    except Exception as error:
        raise _corrupt(str(path), error) from None


def upright(image: Image.Image, max_pixels: int = MAX_PIXELS, where: str = "the image") -> Image.Image:
    """An opened image, decoded, upright, mode RGB.

    Args:
        image: decoded or not yet.
        max_pixels: width x height above which it is refused before any pixel is decoded.
        where: names it in an error.

    Raises:
        ImageError: with `.reason` image_too_large or corrupt_image.
    """
    if image.width * image.height > max_pixels:
        raise _too_large(where, f"{image.width} x {image.height} pixels, the limit is {max_pixels}")
    try:
        image.load()
        return _rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(where, str(error)) from None
    except Exception as error:  # decoders answer damaged bytes with any exception
        raise _corrupt(where, error) from None


def _corrupt(where: str, error: Exception) -> ImageError:
    return ImageError("corrupt_image", f"the image is damaged: {error}", where=where, fix="fetch or export it again")


def _too_large(where: str, what: str) -> ImageError:
    return ImageError("image_too_large", f"the image is too large: {what}", where=where, fix="scale it down")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode.startswith("I"):  # 16 bits a pixel: a plain conversion would clip to white
        image = image.convert("I").point(lambda value: value / 257, "L")
    return image.convert("RGB")


def image_size(root: str | Path, relative: str) -> tuple[int, int]:
    """Width and height in pixels of the upright image; only its header is read.

    Raises:
        ImageError: as `open_image`, but for what only decoding shows.
    """
    path = resolve(root, relative)
    try:
        with Image.open(path, formats=FORMATS) as image:
            turned = image.getexif().get(ORIENTATION, 1) >= QUARTER_TURNS
            return (image.height, image.width) if turned else image.size
    except Exception as error:  # headers too are answered with any exception
        raise ImageError("not_an_image", f"the file is not an image: {error}", where=str(path), fix=f"formats read: {', '.join(FORMATS)}") from None


def check_image(root: str | Path, relative: str, *, perceptual: bool = False) -> Checked:
    """Decodes the whole image once and says what it is.

    Raises:
        ImageError: as `open_image`.
    """
    image = open_image(root, relative)
    width, height = image.size
    hashed = perceptual_hash(image) if perceptual else None
    return Checked(sha256_file(resolve(root, relative)), width, height, hashed)


def perceptual_hash(image: Image.Image) -> int:
    """The 64-bit DCT hash of Zauner (2010), `imagehash.phash`: near-equal pictures differ in few bits."""
    import imagehash

    return int(str(imagehash.phash(image)), 16)
