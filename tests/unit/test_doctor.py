"""The examination of broken environments: every fault is found, told with its mend, and ends nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from causalroute.cli import run
from causalroute.doctor import compute, packages
from causalroute.doctor.examine import examine
from causalroute.doctor.finding import Finding, as_text, attempt

ROOT = Path(__file__).resolve().parents[2]
VERSION = metadata.version
CPU = {"version": "2.13.0", "build": "", "available": False, "said": ""}
H200 = {"names": ["H200"], "memory": [150 << 30], "capability": "sm_90", "compiled_for": ["sm_80", "sm_90"]}
RIGHT = {"backend": "reference", "triton": True, "device": "cpu", "difference": 2e-7}


def only(findings: Iterable[Finding]) -> Finding:
    (one,) = findings
    return one


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a module of that name before the installed one, for the child processes."""
    folder = tmp_path / "broken"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return lambda name, body: folder.joinpath(f"{name}.py").write_text(body) and None


@pytest.mark.slow
def test_this_environment_is_sound(tmp_path: Path) -> None:
    findings = examine(tmp_path)
    assert [one for one in findings if one.status == "problem"] == []
    assert {"python", "packages", "imports", "torch", "gpu", "routing", "cores", "memory", "locale", "hub", "feature store", "disk"} <= {
        one.check for one in findings
    }


# packages


def versions(monkeypatch: pytest.MonkeyPatch, **found: str | None) -> None:
    def version(name: str) -> str:
        value = found.get(name.replace("-", "_"), "")
        if value is None:
            raise metadata.PackageNotFoundError(name)
        return value or VERSION(name)

    monkeypatch.setattr(packages.metadata, "version", version)


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "sys", types.SimpleNamespace(version_info=(3, 10, 4), executable="python"))
    one = only(packages.python())
    assert (one.status, one.what) == ("problem", "3.10.4; 3.11 or newer is needed")
    assert "3.11" in one.fix


def test_missing_and_outdated_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, polars=None, pillow="9.0")
    one = only(packages.required())
    assert one.status == "problem"
    assert "missing: polars>=1.20" in one.what
    assert "pillow>=11 (found 9.0)" in one.what
    assert one.fix == "pip install -c constraints.txt 'polars>=1.20' 'pillow>=11'"


def test_a_build_with_a_local_version_is_the_one_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = next(line for line in packages.wanted().packages if line.startswith("torch=="))
    versions(monkeypatch, torch=pinned.removeprefix("torch==") + "+cu130")
    assert only(packages.required()).status == "ok"
    versions(monkeypatch, torch="2.0.0")
    assert "found 2.0.0" in only(packages.required()).what


def test_extras_are_optional_but_not_by_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = {"fastapi": None, "uvicorn": None, "prometheus_client": None, "python_multipart": None}
    versions(monkeypatch, **serve)
    found = {one.check: one for one in packages.extras()}
    assert (found["extra serve"].status, found["extra serve"].what) == ("ok", "not installed (optional)")
    assert "pip install 'causalroute[serve]'" in found["extra serve"].fix
    assert found["extra onnx"].status == "ok"
    versions(monkeypatch, fastapi=None, onnx="1.0")
    found = {one.check: one for one in packages.extras()}
    assert (found["extra serve"].status, found["extra onnx"].status) == ("warning", "warning")
    assert "onnx>=1.17 (found 1.0)" in found["extra onnx"].what


def test_an_installed_package_says_itself_what_it_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = type("Told", (dict,), {"get_all": lambda self, key: ["serve"]})({"Requires-Python": ">=3.12"})
    lines = ["polars>=1.20", "uvicorn>=0.32; extra == 'serve'", "triton>=3.6; (sys_platform == 'linux') and extra == 'serve'"]
    monkeypatch.setattr(packages.metadata, "metadata", lambda _: told)
    monkeypatch.setattr(packages.metadata, "requires", lambda _: lines)
    asked = packages.wanted(tmp_path)
    assert (asked.python, asked.packages, asked.name) == (">=3.12", ("polars>=1.20",), "the installed package")
    assert asked.extras["serve"][0] == "uvicorn>=0.32"


# probes


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ImportError('libfoo.so: cannot open')", "import polars: ImportError: libfoo.so: cannot open"),
        ("import sys; sys.exit(3)", "import polars: SystemExit: 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "import polars: the process ended by SIGILL"),
        ("import os; os._exit(7)", "import polars: the process ended with exit code 7"),
    ],
)
def test_a_package_that_breaks_when_it_is_imported(fake: Any, body: str, words: str) -> None:
    fake("polars", body)
    one = only(compute.imported(compute.start("imports", "json", "polars")))
    assert (one.status, one.what) == ("problem", words)
    assert "--force-reinstall" in one.fix


def test_a_missing_module_points_to_the_packages() -> None:
    one = only(compute.imported(compute.start("imports", "no_such_module")))
    assert "ModuleNotFoundError" in one.what
    assert "missing" in one.fix


def test_a_probe_that_hangs_is_ended(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("polars", "import time; time.sleep(60)")
    monkeypatch.setitem(compute.PATIENCE, "imports", 1.0)
    probe = compute.start("imports", "polars")
    assert "stuck: import polars took more than 1 s" in only(compute.imported(probe)).what
    assert probe.process.returncode is not None


def test_torch_that_cannot_be_imported(fake: Any) -> None:
    fake("torch", "raise OSError('libc10.so: undefined symbol')")
    one = only(compute.devices(compute.start("torch")))
    assert (one.check, one.status) == ("torch", "problem")
    assert "import torch: OSError: libc10.so: undefined symbol" in one.what


@pytest.mark.slow
def test_the_routing_of_this_machine_computes_right() -> None:
    found = {one.check: one for one in compute.devices(compute.start("torch"))}
    assert found["routing"].status == "ok"
    assert "backend" in found["routing"].what


@pytest.mark.parametrize(
    ("facts", "nvidia", "status", "words", "fix"),
    [
        (CPU, False, "ok", "none", ""),
        (CPU, True, "warning", "computes on the CPU alone", "install a CUDA build"),
        ({**CPU, "build": "13.0"}, False, "ok", "none; this CUDA build", "smaller"),
        ({**CPU, "build": "13.0", "said": "driver too old (found 11040)"}, True, "warning", "driver too old (found 11040)", "update the NVIDIA driver"),
        ({**CPU, "build": "13.0", "available": True} | H200, True, "ok", "H200, 150 GiB", ""),
        ({**CPU, "build": "13.0", "available": True} | H200 | {"capability": "sm_61"}, True, "warning", "capability sm_61", "built for this GPU"),
    ],
)
def test_devices(facts: dict[str, Any], nvidia: bool, status: str, words: str, fix: str) -> None:
    build, gpu = compute.torch(facts, nvidia)
    assert build.status == "ok"
    assert (gpu.status, words in gpu.what, fix in gpu.fix) == (status, True, True), gpu


def test_a_hidden_gpu_is_no_fault_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _, gpu = compute.torch({**CPU, "build": "13.0"}, True)
    assert gpu.fix == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        (RIGHT, "ok"),
        ({**RIGHT, "difference": 0.1}, "problem"),
        ({**RIGHT, "difference": float("nan")}, "problem"),
        ({**RIGHT, "device": "cuda", "triton": False}, "warning"),
    ],
)
def test_routing(facts: dict[str, Any], status: str) -> None:
    assert compute.routing(facts, True).status == status


# the command


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    findings = [Finding("python", "ok", "3.12 \x1b[2J"), Finding("disk", "warning", "little", "free some")]
    monkeypatch.setattr("causalroute.doctor.command.examine", lambda *_, **__: findings)
    return findings


def test_what_is_printed_and_the_exit_code(quick: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "warning", "fix:", "2"]
    assert "\x1b" not in lines[0]
    quick.append(Finding("packages", "problem", "missing: x", "pip install x"))
    assert run(["doctor", "--format", "json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["problems"], told["warnings"], told["findings"][2]["fix"]) == (1, 1, "pip install x")
    assert as_text(quick).endswith("3 checks, 1 warnings, 1 problems\n")


def test_a_check_that_fails_is_a_finding() -> None:
    one = only(attempt("disk", lambda: 1 / 0))  # type: ignore[arg-type, return-value]
    assert (one.check, one.status, "ZeroDivisionError" in one.what) == ("disk", "problem", True)


def test_it_runs_where_the_command_line_does_not_start(fake: Any, tmp_path: Path) -> None:
    for name in ("shtab", "pydantic", "yaml", "numpy", "packaging", "torch"):
        fake(name, "raise ImportError('broken')")
    (tmp_path / "params.yaml").write_text("run: [ä]\n")
    path = f"{ROOT / 'src'}{os.pathsep}{os.environ['PYTHONPATH']}"
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "causalroute.doctor", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    for words in ("problem  packages", "problem  torch", "problem  params.yaml", "warning  locale", "ok       disk"):
        assert words in done.stdout, done.stdout
