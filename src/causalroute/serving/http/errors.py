"""Every answer that is no success is one JSON object: {"error": what is wrong, "where": field or post, "fix": what to do}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from causalroute.errors import UserError

STATUS = {"image_too_large": 413, "not_an_image": 415}
"""Reasons of `data.images.ImageError` with a status of their own; 422 for all else."""
KNOWN = {
    404: ("there is no such address", "GET /openapi.json lists what there is"),
    405: ("this address does not take this method", "GET /openapi.json lists what there is"),
}


class Refused(Exception):
    """A request that is not answered.

    Args:
        status: HTTP status.
        reason: one word, the label of the metric.
        what: the problem in one sentence.
        where: field or post it was found at.
        fix: what to do about it.
        retry: seconds after which the same request may succeed; 0: never.
    """

    def __init__(self, status: int, reason: str, what: str, *, where: str = "", fix: str = "", retry: int = 0) -> None:
        super().__init__(what)
        self.status, self.reason, self.retry = status, reason, retry
        self.told = {"error": what, "where": where, "fix": fix}

    @classmethod
    def of(cls, error: UserError) -> Refused:
        """A user's mistake that the library found."""
        reason = getattr(error, "reason", "unusable_post")
        return cls(STATUS.get(reason, 422), reason, error.what, where=error.where, fix=error.fix)

    def response(self) -> JSONResponse:
        """What the client gets."""
        return JSONResponse(self.told, self.status, {"Retry-After": str(self.retry)} if self.retry else None)


def place(loc: Sequence[int | str]) -> str:
    """`(0, "image")` -> `post 1: image`; `("query", "explain")` -> `query: explain`."""
    parts = [f"post {part + 1}" if isinstance(part, int) else part for part in loc]
    return ": ".join(parts)


def invalid(errors: Sequence[Mapping[str, Any]]) -> Refused:
    """What pydantic found, told by its first finding; values are not repeated."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return Refused(400, "not_json", "the body is not valid JSON", where="body", fix="send UTF-8 JSON, strings in double quotes")
    where = place(first["loc"]) or "body"
    if first["type"] == "extra_forbidden":
        return Refused(422, "unknown_field", "this field is not known", where=where, fix="leave it out; GET /openapi.json lists the fields")
    return Refused(422, "invalid", str(first["msg"]), where=where, fix="GET /openapi.json describes the fields")


async def on_refused(request: Request, error: Exception) -> JSONResponse:
    """Handler of `Refused`; the reason is kept for the metrics."""
    assert isinstance(error, Refused)
    request.scope["refused"] = error.reason
    return error.response()


async def on_invalid(request: Request, error: Exception) -> JSONResponse:
    """Handler of FastAPI's own checks (query and path)."""
    assert isinstance(error, RequestValidationError)
    return await on_refused(request, invalid(error.errors()))


async def on_http(request: Request, error: Exception) -> JSONResponse:
    """Handler of what the router refuses."""
    assert isinstance(error, HTTPException)
    what, fix = KNOWN.get(error.status_code, (str(error.detail), ""))
    return JSONResponse({"error": what, "where": "address", "fix": fix}, error.status_code, error.headers)
