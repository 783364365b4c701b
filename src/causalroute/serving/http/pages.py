"""The page, its scripts and styles as files of this server, its examples, and the documentation of the API. Nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response

from causalroute.serving.http.errors import Refused
from causalroute.serving.http.examples import gather
from causalroute.serving.http.schemas import ErrorOut, ExampleOut

KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "html": "text/html"}
STATIC = ("page.css", "page.js", "draw.js", "docs.js", "icon.svg")
CACHE = {"Cache-Control": "no-cache"}


def routes(config: Mapping[str, Any], folder: Path | None) -> APIRouter:
    """GET /, /docs, /static/{name}, /v1/examples.

    Raises:
        UserError: an example of the saved model is unusable.
    """
    found = APIRouter()
    examples = gather(config, folder)
    static = {name: _file(name) for name in STATIC} | {"base.css": (files("causalroute.report") / "templates" / "page.css").read_bytes()}

    @found.get("/", include_in_schema=False)
    async def page() -> Response:
        return _response("page.html", _file("page.html"))

    @found.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return _response("docs.html", _file("docs.html"))

    @found.get("/static/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in static:
            raise Refused(404, "not_found", "there is no such file", where="address")
        return _response(name, static[name])

    @found.get("/v1/examples", response_model=list[ExampleOut], tags=["examples"])
    async def listed() -> list[dict[str, Any]]:
        """Posts to try."""
        return [
            {
                "title": one.title, "text": one.text, "alt": one.alt, "attributes": one.attributes,
                "image": None if one.image is None else f"v1/examples/{number}/image",
            }
            for number, one in enumerate(examples)
        ]  # fmt: skip

    told: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}, 404: {"model": ErrorOut, "description": "there is no such picture"}}

    @found.get("/v1/examples/{number}/image", response_class=Response, responses=told, tags=["examples"])
    async def picture(number: int) -> Response:
        """The picture of an example."""
        image = examples[number].image if 0 <= number < len(examples) else None
        if image is None:
            raise Refused(404, "not_found", "there is no such picture", where="address")
        return Response(image, media_type="image/png", headers=CACHE)

    return found


def _file(name: str) -> bytes:
    return (files("causalroute.serving.http") / "templates" / name).read_bytes()


def _response(name: str, content: bytes) -> Response:
    return Response(content, media_type=KINDS[name.rpartition(".")[2]], headers=CACHE)
