"""`causalroute serve MODEL`: predictions over HTTP, and a page to try them."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import signal
import socket
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalroute.errors import UserError

if TYPE_CHECKING:
    import uvicorn

    from causalroute.serving.http.limits import Limits

DESCRIPTION = """\
Serves a saved model: a page that shows the biased prediction beside the debiased one with the effects behind them, and an API
(POST /v1/predict, /v1/predict/batch; GET /v1/model, /healthz, /readyz, /metrics, /openapi.json, /docs). Nothing is loaded from
elsewhere, posts are neither stored nor logged. There is no sign-in: keep to 127.0.0.1, or put a proxy with one in front."""
EXAMPLES = """\
examples:
  causalroute serve out/model
  causalroute serve out/model --port 0                       # any free port; the address is printed
  causalroute serve out/model --host 0.0.0.0 --no-page --max-body-mb 2 --timeout 10
  curl http://127.0.0.1:8000/v1/predict -F text='what a lovely monday #monday' -F image=@photo.jpg

ends on SIGINT (Ctrl+C) and SIGTERM, after the requests at work are answered

exit codes: 0 ended by a signal; 2 unusable arguments or model"""
NEEDED = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
MEGABYTE = 1_000_000
HIGHEST_PORT = 65535


def add(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers."""
    layout = {"description": DESCRIPTION, "epilog": EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    one = commands.add_parser("serve", help="predictions over HTTP, and a page to try them", **layout)
    one.add_argument("model", type=Path, help="folder of a saved model: `model` of causalroute train or causalroute export")
    one.add_argument("--backbone", default="", metavar="FOLDER", help="another folder for the frozen encoder")
    one.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    one.add_argument("--port", type=int, default=8000, help="0: any free one (default: %(default)s)")
    one.add_argument("--no-page", action="store_true", help="the API alone: no page, documentation or examples")
    limits = one.add_argument_group("limits (over them: 413, 429, 503 or 504 with a JSON that says why)")
    limits.add_argument("--max-body-mb", type=float, default=10.0, metavar="MB", help="bytes of a request (default: %(default)s)")
    limits.add_argument("--max-pixels", type=int, default=24_000_000, metavar="N", help="all images of a request together (default: %(default)s)")
    limits.add_argument("--max-text", type=int, default=10_000, metavar="N", help="characters of a text (default: %(default)s)")
    limits.add_argument("--max-posts", type=int, default=64, metavar="N", help="posts of a batch request (default: %(default)s)")
    limits.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="from a request to its answer (default: %(default)s)")
    limits.add_argument("--concurrency", type=int, default=16, metavar="N", help="requests read or predicted at a time (default: %(default)s)")
    limits.add_argument("--queue", type=int, default=64, metavar="N", help="further requests that may wait (default: %(default)s)")
    limits.add_argument("--batch", type=int, default=32, metavar="N", help="waiting posts that are predicted in one call (default: %(default)s)")
    one.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serves until a signal; returns the exit code.

    Raises:
        UserError: a package or the model is missing, an argument is unusable, or the address is taken.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(f"the service needs packages that are not installed: {', '.join(missing)}", fix="pip install 'causalroute[serve]'")
    limits = _limits(arguments)
    with _listening(arguments.host, arguments.port) as listener:
        from causalroute.serving.predictor import Predictor

        _log()
        return serve(Predictor.load(arguments.model, backbone=arguments.backbone), listener, limits, page=not arguments.no_page, folder=arguments.model)


def serve(model: Any, listener: socket.socket, limits: Limits, *, page: bool = True, folder: Path | None = None) -> int:
    """Serves a model at a bound socket until SIGINT or SIGTERM; prints the address when the model is loaded.

    Args:
        model: a `Predictor`.
        listener: where to listen.
        limits: what a request may cost.
        page: `/`, `/docs` and the examples as well.
        folder: of the saved model, for the pictures of its examples.

    Raises:
        UserError: the model cannot be loaded.
    """
    import uvicorn

    from causalroute.serving.http.application import create

    failed: list[BaseException] = []

    def told(error: BaseException | None) -> None:
        if error is None:
            print(f"serving {model.config.get('method', 'the model')} at {address(listener)} (Ctrl+C ends)", flush=True)
        else:
            failed.append(error)
            server.should_exit = True

    app = create(model, limits, page=page, folder=folder, told=told)
    settings = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=max(1, round(limits.timeout)), ws="none")
    server = uvicorn.Server(settings)
    _run(server, listener)
    if failed:
        raise failed[0]
    return 0


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Runs until a signal. uvicorn sends the signal to its process again when all is done; that would turn a proper end into a failure."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _limits(arguments: argparse.Namespace) -> Limits:
    from causalroute.serving.http.limits import Limits

    told = {name: getattr(arguments, name) for name in ("timeout", "concurrency", "queue", "batch")}
    told |= {name: getattr(arguments, f"max_{name}") for name in ("pixels", "text", "posts")}
    try:
        return Limits(body=round(arguments.max_body_mb * MEGABYTE), **told)
    except (ValueError, OverflowError) as error:
        raise UserError(f"a limit is unusable: {error}", fix="see causalroute serve --help") from None


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port <= HIGHEST_PORT:
        raise UserError(f"{port} is no port", where="--port", fix=f"name one from 0 to {HIGHEST_PORT}")
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(place[:2], family=family)
    except OSError as error:
        fix = "name another --port (0: any free one) or --host"
        raise UserError(f"cannot listen there: {error.strerror or error}", where=f"{host}:{port}", fix=fix) from None
    if not ipaddress.ip_address(place[0]).is_loopback:
        print(f"note: everyone who reaches {address(listener)} can use the service: there is no sign-in", file=sys.stderr)
    return listener


def address(listener: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


def _log() -> None:
    """One line a request to standard error, with the time."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("causalroute.serve").setLevel(logging.INFO)
