"""The command: what it prints, how it ends, and what it refuses; here with real sockets and real signals."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from tests.unit.fake_predictor import FakePredictor

from causalroute.cli import run, serve
from causalroute.errors import UserError
from causalroute.serving.http.limits import Limits

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import socket, sys
from causalroute.cli.serve import _log, serve
from causalroute.serving.http.limits import Limits
from tests.unit.fake_predictor import FakePredictor
_log()
sys.exit(serve(FakePredictor(1.5), socket.create_server(("127.0.0.1", 0)), Limits()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_requests_at_work(number: signal.Signals) -> None:
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=os.environ | paths, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.fullmatch(r"serving causal_moe at (http://127\.0\.0\.1:\d+) \(Ctrl\+C ends\)\n", line)
        assert address, line
        body = b'{"text": "confidential"}'
        with socket.create_connection(("127.0.0.1", int(address[1].rpartition(":")[2]))) as connection:
            head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            time.sleep(0.5)
            process.send_signal(number)
            assert connection.recv(100).startswith(b"HTTP/1.1 200 OK")
        output, log = process.communicate(timeout=20)
    assert (process.returncode, output) == (0, "")
    assert re.search(r"POST /v1/predict 200 \d+ ms\n", log)
    assert "confidential" not in log
    assert "Traceback" not in log


def test_a_model_that_cannot_be_loaded_ends_it() -> None:
    model = FakePredictor()
    model.cold = UserError("the backbone is gone", fix="bring it back")
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(UserError, match="the backbone is gone"):
        serve.serve(model, listener, Limits())


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What `Predictor.load` and `serve` were called with; nothing is served."""
    calls: list[tuple[object, ...]] = []

    class Predictor(FakePredictor):
        @classmethod
        def load(cls, folder: Path, *, backbone: str = "") -> Predictor:
            calls.append((folder, backbone))
            if folder.name == "none":
                raise UserError("this is no saved model", where=str(folder))
            return cls()

    module = ModuleType("causalroute.serving.predictor")
    module.Predictor = Predictor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(serve, "serve", lambda model, listener, limits, **options: calls.append((serve.address(listener), limits, options)) or 0)
    return calls


def test_arguments_reach_the_service(predictor: list[tuple[object, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--port", "0", "--no-page", "--max-body-mb", "0.5", "--max-pixels", "100", "--max-text", "7", "--max-posts", "3", "--timeout", "2.5"]
    assert run(["serve", "out/model", "--backbone", "other", *options, "--concurrency", "5", "--queue", "0", "--batch", "9"]) == 0
    (folder, backbone), (address, limits, told) = predictor
    assert (folder, backbone) == (Path("out/model"), "other")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", str(address))
    assert limits == Limits(body=500_000, pixels=100, text=7, posts=3, timeout=2.5, concurrency=5, queue=0, batch=9)
    assert told == {"page": False, "folder": Path("out/model")}
    assert capsys.readouterr().err == ""


def test_defaults_are_those_of_the_library(predictor: list[tuple[object, ...]]) -> None:
    assert run(["serve", "m", "--port", "0"]) == 0
    assert predictor[1][1:] == (Limits(), {"page": True, "folder": Path("m")})


def test_an_open_address_is_noted(predictor: list[tuple[object, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "m", "--port", "0", "--host", "0.0.0.0"]) == 0
    assert "there is no sign-in" in capsys.readouterr().err


def test_what_is_refused(predictor: list[tuple[object, ...]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, words in (
            (["m", "--port", port], f"127.0.0.1:{port}"),
            (["m", "--port", "70000"], "70000 is no port"),
            (["m", "--port", "0", "--host", "no.such.host.invalid"], "cannot listen there"),
            (["m", "--port", "0", "--timeout", "0"], "timeout must be at least"),
            (["m", "--port", "0", "--max-body-mb", "inf"], "a limit is unusable"),
            (["none", "--port", "0"], "this is no saved model"),
        ):
            assert run(["serve", *arguments]) == 2
            assert words in capsys.readouterr().err
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else True)
    assert run(["serve", "m"]) == 2
    assert "not installed: uvicorn\n  fix:   pip install 'causalroute[serve]'" in capsys.readouterr().err


def test_help_has_examples_whose_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(["serve", "--help"])
    usage, examples = capsys.readouterr().out.split("examples:")
    assert all(option in usage for option in re.findall(r"--[a-z-]+", examples.partition("curl")[0]))


def test_addresses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert httpx.URL(serve.address(listener)).port == listener.getsockname()[1]
    if socket.has_ipv6:
        try:
            with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
                assert serve.address(listener).startswith("http://[::1]:")
        except OSError:
            pytest.skip("no IPv6 here")
