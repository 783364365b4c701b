"""The service in the event loop of a test, without sockets."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from PIL import Image
from tests.unit.fake_predictor import FakePredictor

from causalroute.serving.http.application import create
from causalroute.serving.http.limits import Limits


def picture(colour: str = "red", size: tuple[int, int] = (12, 8), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format=kind)
    return buffer.getvalue()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@asynccontextmanager
async def client(model: FakePredictor | None = None, *, ready: bool = True, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service; `options` are those of `create`, and limits by name."""
    model = model or FakePredictor()
    limits = Limits(**{name: options.pop(name) for name in list(options) if name in Limits.__dataclass_fields__})
    app = create(model, limits, **options)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as found:
        try:
            while ready and (await found.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.001)
            yield found
        finally:
            model.free.set()  # a call that still waits would keep the thread


def run(test: Callable[[httpx.AsyncClient], Awaitable[Any]], model: FakePredictor | None = None, **options: Any) -> Any:
    """Runs `test` with a client."""

    async def whole() -> Any:
        async with client(model, **options) as found:
            return await test(found)

    return asyncio.run(whole())


def ask(method: str, path: str, model: FakePredictor | None = None, *, sent: dict[str, Any] | None = None, **options: Any) -> httpx.Response:
    """One request to a service of its own."""
    return run(lambda found: found.request(method, path, **(sent or {})), model, **options)


async def metric(found: httpx.AsyncClient, line: str) -> float:
    """The value of one line of /metrics; 0 where it is not there yet."""
    lines = (await found.get("/metrics")).text.splitlines()
    return float(next((one.rpartition(" ")[2] for one in lines if one.startswith(f"{line} ")), 0))


async def until(reached: Callable[[], Any]) -> None:
    """Waits until it is so."""
    async with asyncio.timeout(20):
        while not (told := reached()) or (isinstance(told, Awaitable) and not await told):
            await asyncio.sleep(0.002)
