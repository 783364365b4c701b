"""What one request may cost, and the checks that hold it to that: bytes while they are read, pixels before any is decoded, characters, posts."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields

from fastapi import Request
from PIL import Image

from causalroute.data.images import FORMATS, MAX_PIXELS, ImageError, upright
from causalroute.data.records import clean
from causalroute.serving.http.errors import Refused
from causalroute.serving.http.schemas import PostIn
from causalroute.serving.posts import Post

SIDES = {
    "image": {"text", "image"},
    "attributes": {"text", "attributes"},
    "none": {"text"},
}
"""What a model with this visual side reads."""


@dataclass(frozen=True)
class Limits:
    """Of one service. The memory that requests hold is at most about `concurrency` x (`body` + 3 `pixels`) bytes."""

    body: int = 10_000_000
    """bytes of a request"""
    pixels: int = 24_000_000
    """width x height, all images of a request together"""
    text: int = 10_000
    """characters of a text, and of attribute words"""
    posts: int = 64
    """posts of a batch request"""
    timeout: float = 30.0
    """seconds from a request's head to its answer"""
    concurrency: int = 16
    """requests that are read, decoded or predicted at a time"""
    queue: int = 64
    """further requests that wait for their turn, their bodies unread"""
    batch: int = 32
    """posts of requests that wait together and are predicted in one call"""

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 0 if field.name == "queue" else 1e-3 if field.name == "timeout" else 1
            if not getattr(self, field.name) >= least:
                raise ValueError(f"{field.name} must be at least {least:g}")
        if self.pixels > MAX_PIXELS:
            raise ValueError(f"pixels must be at most {MAX_PIXELS}, the most that is decoded at all")


async def read_body(request: Request, limit: int) -> bytes:
    """The body; refused as soon as it is known to be longer than `limit` bytes, whatever its head says.

    Raises:
        Refused: 413.
    """
    told = request.headers.get("content-length", "")
    if told.isascii() and told.isdigit() and int(told[:20]) > limit:
        raise _too_long(limit)
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > limit:
            raise _too_long(limit)
        body += chunk
    return bytes(body)


def _too_long(limit: int) -> Refused:
    return Refused(413, "body", f"the request is longer than {limit} bytes", where="body", fix="send fewer posts at a time, or scale the images down")


def unpacked(encoded: str, where: str) -> bytes:
    """Bytes of an image in base64.

    Raises:
        Refused: it is not base64.
    """
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        fix = "encode the file's bytes in base64 (no line breaks, no data: prefix), or send the file as multipart/form-data"
        raise Refused(422, "not_base64", "the image is not base64", where=where, fix=fix) from None


def decoded(data: bytes, limit: int, where: str) -> Image.Image:
    """An upright RGB image; its size is read from the head of the file and checked before any pixel is decoded.

    Raises:
        Refused: it is too large, damaged, or no image.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return upright(image, limit, where)
    except ImageError as error:
        raise Refused.of(error) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Refused(413, "image_too_large", "the image is too large", where=where, fix="scale it down") from None
    except Exception:  # heads of files too are answered with any exception
        raise Refused(415, "not_an_image", "the file is not an image", where=where, fix=f"formats read: {', '.join(FORMATS)}") from None


def checked(posts: Sequence[PostIn], images: Sequence[bytes | None], limits: Limits, visual: str) -> list[Post]:
    """Posts for the predictor.

    Args:
        posts: as they came; `image` is not looked at.
        images: files, one or none a post.
        limits: of the service.
        visual: visual side of the model.

    Raises:
        Refused: naming the first post that cannot be used.
    """
    left, found = limits.pixels, []
    for number, (post, data) in enumerate(zip(posts, images, strict=True), 1):
        place = f"post {number}: " if len(posts) > 1 else ""
        given = {"text": post.text, "image": data, "attributes": post.attributes}
        _require_sides(given, visual, place)
        for name in ("text", "attributes"):
            _require_short(given[name], limits.text, place + name)
        image = None if data is None else decoded(data, left, place + "image")
        left -= image.width * image.height if image else 0
        found.append(Post(clean(post.text), image, None if post.attributes is None else clean(post.attributes)))
    return found


def _require_sides(given: dict[str, str | bytes | None], visual: str, place: str) -> None:
    for name in ("image", "attributes"):
        if given[name] is not None and name not in SIDES[visual]:
            reads = " and ".join(sorted(SIDES[visual], reverse=True))
            raise Refused(422, "side", f"this model does not read {name}", where=place + name, fix=f"it reads {reads}: leave the rest out")
    texts = (given["text"], given["attributes"])
    if given["image"] is None and not any(isinstance(text, str) and text.strip() for text in texts):
        reads = " or ".join(sorted(SIDES[visual], reverse=True))
        raise Refused(422, "empty", "the post is empty", where=f"{place}text", fix=f"send {reads}")


def _require_short(text: str | bytes | None, limit: int, where: str) -> None:
    if text is not None and len(text) > limit:
        raise Refused(413, "text", f"{len(text)} characters, the limit is {limit}", where=where, fix="cut it: models read the first few hundred words at most")
