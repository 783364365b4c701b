"""The application: one predictor, its routes, and what is around them.

POST /v1/predict, /v1/predict/batch    GET /v1/model, /v1/examples    GET /healthz, /readyz, /metrics, /openapi.json    GET /, /docs: pages
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from causalroute import __version__
from causalroute.errors import UserError
from causalroute.serving.http import errors, pages, status
from causalroute.serving.http.batching import Admission, Batcher, Ticket
from causalroute.serving.http.errors import Refused
from causalroute.serving.http.limits import Limits
from causalroute.serving.http.metrics import Metrics
from causalroute.serving.http.middleware import Guard
from causalroute.serving.http.reading import POST_BODY, batch, batch_body, single
from causalroute.serving.http.schemas import BatchOut, ErrorOut, PredictionOut
from causalroute.serving.http.wording import sentence
from causalroute.serving.posts import Post, Prediction

Read = Callable[[Request, Limits, str], Awaitable[list[Post]]]
WHY: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorOut, "description": "the body is not JSON, or no form"},
    403: {"model": ErrorOut, "description": "sent by a page of another site"},
    408: {"model": ErrorOut, "description": "the body did not come in time"},
    413: {"model": ErrorOut, "description": "more bytes, pixels, characters or posts than allowed"},
    415: {"model": ErrorOut, "description": "neither JSON nor a form, or the file is not an image"},
    422: {"model": ErrorOut, "description": "a field is unknown, missing or unusable"},
    429: {"model": ErrorOut, "description": "too many requests wait already; Retry-After says when to come again"},
    500: {"model": ErrorOut, "description": "the model failed on the post"},
    503: {"model": ErrorOut, "description": "the model is not loaded yet, or the request waited too long"},
    504: {"model": ErrorOut, "description": "the model did not answer in time"},
}
SLOW = {
    "waiting": (503, "timeout_waiting", "too many requests were before this one"),
    "reading": (408, "timeout_reading", "the request's body took too long"),
    "computing": (504, "timeout_computing", "the model took too long"),
}
"""Stage of a request when its time is over -> status, reason, words."""
DONE = "answered"
LOADING = 5
"""Seconds after which to ask again while the model is loading."""


class Model(Protocol):
    """What the service needs of `causalroute.serving.predictor.Predictor`."""

    classes: tuple[str, ...]
    config: dict[str, Any]

    def warm(self) -> None:
        """Loads all that the first prediction needs."""

    def predict(self, posts: Sequence[Post], *, explain: bool = False) -> list[Prediction]:
        """Answers in the order of the posts."""


class Service:
    """One model in service.

    Args:
        model: answers.
        limits: what a request may cost.
        told: called once, from another thread: with None when the model is warm, or with what went wrong.
    """

    def __init__(self, model: Model, limits: Limits, told: Callable[[BaseException | None], None]) -> None:
        self.model, self.limits, self.told = model, limits, told
        self.visual = str(model.config.get("visual", "image"))
        self.metrics = Metrics()
        self.admission = Admission(limits.concurrency, limits.queue)
        self.batcher = Batcher(lambda posts, explain: model.predict(posts, explain=explain), limits.batch, model.warm, self.metrics.predicted)
        self.metrics.gauge("requests_waiting", "Requests that wait for their turn, bodies unread.", lambda: self.admission.waiting)
        self.metrics.gauge("posts_waiting", "Posts that wait for the model.", lambda: self.batcher.waiting)
        self.metrics.gauge("ready", "1 once the model is loaded.", lambda: self.batcher.ready)

    async def answer(self, request: Request, read: Read, explain: bool) -> list[dict[str, Any]]:
        """Reads a request, has it predicted, and tells the answers.

        Raises:
            Refused: it is over a limit, unusable, or took too long.
        """
        self._require_ready()
        ticket = Ticket()
        try:
            async with asyncio.timeout(self.limits.timeout), self.admission.slot(self.batcher.seconds_per_post):
                ticket.stage = "reading"
                posts = await read(request, self.limits, self.visual)
                found = await self.batcher.answer(posts, explain, ticket)
        except TimeoutError:
            code, reason, what = SLOW[ticket.stage]
            fix = f"the limit is {self.limits.timeout:g} s; send less at a time, or come again later"
            raise Refused(code, reason, what, where="time", fix=fix, retry=LOADING if code == 503 else 0) from None
        except UserError as error:
            raise Refused.of(error) from None
        return [self._told(post, one, explain) for post, one in zip(posts, found, strict=True)]

    def _require_ready(self) -> None:
        if self.batcher.failed is not None:
            raise Refused(503, "not_ready", "the model could not be loaded", where="model", fix="see the log of the service")
        if not self.batcher.ready:
            raise Refused(503, "not_ready", "the model is not loaded yet", where="model", fix=f"come again in {LOADING} s", retry=LOADING)

    def _told(self, post: Post, one: Prediction, explain: bool) -> dict[str, Any]:
        words = sentence(post, one, str(self.model.config.get("method", "")), str(self.model.config.get("reference", ""))) if explain else None
        return one.as_dict() | {"sentence": words}


def create(
    model: Model, limits: Limits | None = None, *, page: bool = True, folder: Path | None = None, told: Callable[[BaseException | None], None] = lambda _: None
) -> FastAPI:
    """The ASGI application.

    Args:
        model: a `Predictor`; loaded (`warm`) when the application starts.
        limits: what a request may cost.
        page: `/`, `/docs` and the examples as well.
        folder: of the saved model, for the pictures of its examples.
        told: called once, from another thread: with None when the model is warm, or with what went wrong.

    Raises:
        UserError: an example of the saved model is unusable.
    """
    service = Service(model, limits or Limits(), told)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.batcher.start(service.told)
        yield
        service.batcher.close(service.limits.timeout)

    title, about = "causalroute", "Predictions of a debiased model beside the biased one, with the effects behind them."
    app = FastAPI(title=title, description=about, version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan)
    app.state.service = service
    app.add_exception_handler(Refused, errors.on_refused)
    app.add_exception_handler(RequestValidationError, errors.on_invalid)
    app.add_exception_handler(HTTPException, errors.on_http)
    app.add_middleware(Guard, metrics=service.metrics)
    app.include_router(_predictions(service))
    app.include_router(status.routes(service.model, service.limits, service.batcher, service.metrics))
    if page:
        app.include_router(pages.routes(model.config, folder))
    return app


def _predictions(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["predictions"], responses=WHY)

    @routes.post("/predict", response_model=PredictionOut, response_description=DONE, openapi_extra={"requestBody": POST_BODY})
    async def predict(request: Request, explain: bool = False) -> dict[str, Any]:
        """One post, as JSON or as a form with the image as a file; ?explain=true for effects, gates, experts, words, region and a sentence."""
        _require_known(request)
        return (await service.answer(request, single, explain))[0]

    @routes.post("/predict/batch", response_model=BatchOut, response_description=DONE, openapi_extra={"requestBody": batch_body(service.limits.posts)})
    async def predict_batch(request: Request, explain: bool = False) -> dict[str, Any]:
        """A JSON list of posts; one that is unusable refuses the list and is named."""
        _require_known(request)
        return {"predictions": await service.answer(request, batch, explain)}

    return routes


def _require_known(request: Request) -> None:
    for name in request.query_params:
        if name != "explain":
            raise Refused(422, "unknown_field", "this query parameter is not known", where=f"query: {name}", fix="leave it out")
