"""Routes that say how the service is, and what answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol

from fastapi import APIRouter, Response

from causalroute import __version__
from causalroute.serving.http.batching import Batcher
from causalroute.serving.http.errors import Refused
from causalroute.serving.http.limits import Limits
from causalroute.serving.http.metrics import Metrics
from causalroute.serving.http.schemas import ErrorOut, ModelOut, StatusOut

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class Named(Protocol):
    """What is told of a model."""

    classes: tuple[str, ...]
    config: dict[str, Any]


def routes(model: Named, limits: Limits, batcher: Batcher, metrics: Metrics) -> APIRouter:
    """GET /v1/model, /healthz, /readyz, /metrics."""
    found = APIRouter(tags=["status"])

    @found.get("/v1/model", response_model=ModelOut)
    async def card() -> dict[str, Any]:
        """What answers: classes, method, test results, what made it; and the limits."""
        return _card(model) | {"limits": asdict(limits), "ready": batcher.ready}

    @found.get("/healthz", response_model=StatusOut)
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @found.get("/readyz", response_model=StatusOut, responses={503: {"model": ErrorOut, "description": "the model is not loaded"}})
    async def ready() -> dict[str, str]:
        """The model is loaded: requests may come."""
        if batcher.failed is not None:
            raise Refused(503, "not_ready", "the model could not be loaded", where="model", fix="see the log of the service")
        if not batcher.ready:
            raise Refused(503, "not_ready", "the model is not loaded yet", where="model", fix="ask again in a second", retry=1)
        return {"status": "ready"}

    @found.get("/metrics", response_class=Response, responses={200: {"content": {EXPOSITION.partition(";")[0]: {}}}})
    def exposition() -> Response:
        """For Prometheus."""
        return Response(metrics.text(), media_type=EXPOSITION)

    return found


def _card(model: Named) -> dict[str, Any]:
    config = model.config
    told: dict[str, Any] = {name: str(config.get(name) or "") for name in ("task", "dataset", "method", "reference", "visual")}
    told |= {name: config.get(name) or {} for name in ("backbone", "results", "made_by")}
    return told | {"classes": list(model.classes), "seeds": list(config.get("seeds") or ()), "version": __version__}
