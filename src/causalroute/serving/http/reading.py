"""Posts out of request bodies: JSON with base64 images, or a form with a file. Nothing of a post touches the disk."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from causalroute.serving.http.errors import Refused, invalid
from causalroute.serving.http.limits import Limits, checked, read_body, unpacked
from causalroute.serving.http.schemas import PostIn
from causalroute.serving.posts import Post

FIELDS = ("text", "image", "attributes")
LIST = TypeAdapter(list[PostIn])
_FILE = {"type": "string", "format": "binary", "description": "the image file"}
_JSON = PostIn.model_json_schema()
_FORM = {"type": "object", "properties": {name: _JSON["properties"][name] for name in FIELDS} | {"image": _FILE}, "additionalProperties": False}
POST_BODY: dict[str, Any] = {"required": True, "content": {"application/json": {"schema": _JSON}, "multipart/form-data": {"schema": _FORM}}}
"""The body of /v1/predict, as OpenAPI tells it."""


def batch_body(most: int) -> dict[str, Any]:
    """The body of /v1/predict/batch."""
    return {"required": True, "content": {"application/json": {"schema": {"type": "array", "minItems": 1, "maxItems": most, "items": _JSON}}}}


async def single(request: Request, limits: Limits, visual: str) -> list[Post]:
    """The post of /v1/predict.

    Raises:
        Refused: it is unusable.
    """
    kind = _kind(request)
    if kind not in ("application/json", "multipart/form-data"):
        raise _wrong_kind("application/json or multipart/form-data")
    body = await read_body(request, limits.body)
    if kind == "multipart/form-data":
        post, image = await _form(request, body, limits)
        return await asyncio.to_thread(checked, [post], [image], limits, visual)
    return await asyncio.to_thread(_single, body, limits, visual)


async def batch(request: Request, limits: Limits, visual: str) -> list[Post]:
    """The posts of /v1/predict/batch.

    Raises:
        Refused: one is unusable, or there are too many.
    """
    if _kind(request) != "application/json":
        raise _wrong_kind("application/json")
    body = await read_body(request, limits.body)
    return await asyncio.to_thread(_batch, body, limits, visual)


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _wrong_kind(wanted: str) -> Refused:
    return Refused(415, "content_type", f"the body must be {wanted}", where="Content-Type", fix="say what the body is")


def _single(body: bytes, limits: Limits, visual: str) -> list[Post]:
    try:
        post = PostIn.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None
    return checked([post], [None if post.image is None else unpacked(post.image, "image")], limits, visual)


def _batch(body: bytes, limits: Limits, visual: str) -> list[Post]:
    try:
        posts = LIST.validate_json(body)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None
    if not posts:
        raise Refused(422, "empty", "the list is empty", where="body", fix="send at least one post")
    if len(posts) > limits.posts:
        raise Refused(413, "posts", f"{len(posts)} posts, the limit is {limits.posts}", where="body", fix="send several lists")
    images = [None if post.image is None else unpacked(post.image, f"post {number}: image") for number, post in enumerate(posts, 1)]
    return checked(posts, images, limits, visual)


class _InMemory(MultiPartParser):
    """Keeps files in memory: the body is there already, and its length is limited."""

    spool_max_size = sys.maxsize


async def _form(request: Request, body: bytes, limits: Limits) -> tuple[PostIn, bytes | None]:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        parser = _InMemory(request.headers, stream(), max_files=1, max_fields=len(FIELDS), max_part_size=limits.body)  # type: ignore[arg-type]
        form = await parser.parse()
    except MultiPartException as error:
        raise Refused(400, "not_a_form", f"the form is damaged: {error.message}", where="body", fix="one file at most, and one value a field") from None
    try:
        values = _values(form)
        image = values.pop("image", None)
        data = await image.read() if isinstance(image, UploadFile) else None
        return PostIn(**{name: _unix(str(value)) for name, value in values.items()}), data
    finally:
        await form.close()


def _values(form: FormData) -> dict[str, str | UploadFile]:
    values: dict[str, str | UploadFile] = {}
    for name, value in form.multi_items():
        if name not in FIELDS:
            raise Refused(422, "unknown_field", "this field is not known", where=name, fix=f"the fields are {', '.join(FIELDS)}")
        if name in values:
            raise Refused(422, "invalid", "this field was sent twice", where=name, fix="send it once")
        if isinstance(value, UploadFile) != (name == "image"):
            raise Refused(422, "invalid", "this field has the wrong kind", where=name, fix="send `image` as a file with a name, the others as plain fields")
        if isinstance(value, str) or value.filename or value.size:  # a browser sends an empty file where none was chosen
            values[name] = value
    return values


def _unix(text: str) -> str:
    """Forms write every line end as CR LF (HTML standard); models were trained on what people typed."""
    return text.replace("\r\n", "\n")
