"""Around every request: headers that browsers enforce, counts, one log line without content, and an answer where the service itself fails."""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from causalroute.serving.http.errors import Refused
from causalroute.serving.http.metrics import Metrics

LOG = logging.getLogger("causalroute.serve")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
UNCOUNTED = "/metrics"
"""A scraper does not count itself as open."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware; the log names routes, never an address as it was sent, for that is a stranger's text too."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _secure(MutableHeaders(scope=message))
            await send(message)

        if counted := scope["path"] != UNCOUNTED:
            self.metrics.open.inc()
        try:
            await self._answer(scope, receive, sent, lambda: status)
        finally:
            if counted:
                self.metrics.open.dec()
            self._count(scope, status, time.perf_counter() - start)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, status: Any) -> None:
        try:
            if scope["method"] == "POST" and Headers(scope=scope).get("sec-fetch-site", "none") not in ("none", "same-origin"):
                # Pages of other sites could not read the answer; they shall not spend this machine's time either.
                scope["refused"] = "cross_site"
                refused = Refused(403, "cross_site", "requests from pages of other sites are refused", where="Sec-Fetch-Site", fix="call from a program")
                await refused.response()(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            # The message of an exception may quote a post; its type and place do not.
            LOG.error("%s at %s:%s", type(error).__name__, frame.filename.rpartition("/")[2], frame.lineno)
            if not status():
                told = {"error": "the service failed on this request", "where": type(error).__name__, "fix": "see its log"}
                await JSONResponse(told, 500)(scope, receive, send)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.metrics.requests.labels(method, route, str(status or "gone")).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        if reason := scope.get("refused"):
            self.metrics.rejected.labels(reason).inc()
        LOG.info("%s %s %s %.0f ms", method, route, status or "gone", 1000 * seconds)


def _secure(headers: MutableHeaders) -> None:
    for name, value in HEADERS.items():
        headers[name] = value
    headers.setdefault("Cache-Control", "no-store")
