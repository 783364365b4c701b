"""The examination of the machine, the caches and a checkout that are not as they should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from causalroute.doctor import checkout, compute, machine, packages, storage
from causalroute.doctor.finding import Finding
from causalroute.provenance import RunLock

ROOT = Path(__file__).resolve().parents[2]


def only(findings: Iterable[Finding]) -> Finding:
    (one,) = findings
    return one


# machine


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_limits_of_a_container(tmp_path: Path) -> None:
    new = write(tmp_path / "new", cpu_dot_max="50000 100000\n", memory_dot_max=f"{2 << 30}\n")
    assert machine.cores(new)[0] == 0.5
    assert machine.memory(new)[0] == 2 << 30
    old = write(tmp_path / "old", cpu__cpu_dot_cfs_quota_us="25000", cpu__cpu_dot_cfs_period_us="100000", memory__memory_dot_limit_in_bytes=str(1 << 30))
    assert (machine.cores(old)[0], machine.memory(old)[0]) == (0.25, 1 << 30)
    none = write(tmp_path / "none", cpu_dot_max="max 100000", memory_dot_max="max")
    assert machine.memory(none)[0] == machine.memory(none)[1]
    assert machine.memory(tmp_path, tmp_path / "absent") == (0, 0)


def test_little_memory_and_too_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: (1 << 30, 8 << 30))
    monkeypatch.setattr(machine, "cores", lambda: (2.0, 64))
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    cores, memory = machine.resources()
    assert (cores.status, "2 of 64 cores" in cores.what, "OMP_NUM_THREADS=1" in cores.fix) == ("warning", True, True)
    assert (memory.status, "1.0 of 8.0 GiB" in memory.what) == ("warning", True)


def test_a_terminal_that_is_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.locale, "getpreferredencoding", lambda _: "ANSI_X3.4-1968")
    one = only(machine.text_encoding())
    assert (one.status, "files ANSI_X3.4-1968" in one.what, "C.UTF-8" in one.fix) == ("warning", True, True)


def test_no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    def refuse() -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(multiprocessing, "Lock", refuse)
    one = only(machine.semaphores())
    assert (one.status, "/dev/shm" in one.fix) == ("warning", True)


def test_the_hub_is_asked_only_when_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(machine, "unreachable", lambda _: pytest.fail("the network was used"))
    assert only(machine.hub(False)).what == "not asked"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert [only(machine.hub(online)).status for online in (False, True)] == ["ok", "warning"]


def test_a_hub_that_answers_and_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(401 if self.path == "/login" else 503)
            self.end_headers()

        def log_message(self, *words: object) -> None: ...

    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        for path, status in (("/login", "ok"), ("/down", "warning")):
            monkeypatch.setenv("HF_ENDPOINT", address + path)
            assert only(machine.hub(True)).status == status
        server.shutdown()
    monkeypatch.setenv("HF_ENDPOINT", address)
    one = only(machine.hub(True))
    assert (one.status, "does not answer" in one.what) == ("warning", True)
    monkeypatch.setenv("HF_ENDPOINT", "not an address")
    assert only(machine.hub(True)).status == "warning"


# storage


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CAUSALROUTE_CACHE", str(tmp_path / "file"))
    found = {one.check: one for one in storage.caches()}
    assert (found["feature store"].status, "is a file" in found["feature store"].what) == ("problem", True)
    assert "CAUSALROUTE_CACHE" in found["feature store"].fix
    assert not (tmp_path / "file" / "features").exists()

    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(storage.tempfile, "TemporaryFile", refuse)
    assert storage.unwritable(tmp_path) == "Read-only file system"


def test_looking_at_a_cache_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSALROUTE_CACHE", str(tmp_path / "cache"))
    found = {one.check: one for one in storage.caches()}
    assert found["feature store"].what.endswith("not there yet")
    assert not (tmp_path / "cache").exists()
    (tmp_path / "cache" / "features" / "key").mkdir(parents=True)
    (tmp_path / "cache" / "features" / "key" / "a").write_bytes(b"x" * 100)
    assert "in 1 files" in next(one.what for one in storage.caches() if one.check == "feature store")


@pytest.mark.parametrize(("free", "status"), [(50 << 30, "ok"), (2 << 30, "warning"), (100 << 20, "problem")])
def test_free_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=free))
    assert storage.disk(tmp_path).status == status


@pytest.mark.slow
def test_damaged_shards_are_found_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSALROUTE_CACHE", str(tmp_path))
    assert only(compute.sound(compute.start("shards"))).status == "ok"
    (tmp_path / "features" / "key").mkdir(parents=True)
    (tmp_path / "features" / "key" / f"{'0' * 64}.safetensors").write_bytes(b"broken")
    one = only(compute.sound(compute.start("shards")))
    assert (one.status, "checksum differs" in one.what, "--repair" in one.fix) == ("problem", True, True)


# checkout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "workflow" / "schemas").mkdir(parents=True)
    for name in ("params.yaml", "workflow/schemas/params.schema.json"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def looked(folder: Path) -> dict[str, Finding]:
    return {one.check: one for one in checkout.look(folder)}


def test_no_project_and_no_folder(tmp_path: Path) -> None:
    assert looked(tmp_path)["project"].status == "ok"
    assert looked(tmp_path / "absent")["project"].status == "problem"


@pytest.mark.parametrize("schema", ["its own", "of the package", "none"])
def test_settings(project: Path, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if schema != "its own":
        (project / "workflow" / "schemas" / "params.schema.json").unlink()
    if schema == "none":
        monkeypatch.setattr(packages, "TOP", project)
    assert looked(project)["params.yaml"].what == "valid; run: planted"
    text = (project / "params.yaml").read_text()
    if schema != "none":
        (project / "params.yaml").write_text(text.replace("top_k: 1}", "topk: 1}", 1))
        assert "did you mean 'top_k'" in looked(project)["params.yaml"].what
    (project / "params.yaml").write_text(text.replace("epochs:", "epoch:"))
    one = looked(project)["params.yaml"]
    assert (one.status, "did you mean 'epochs'" in one.what) == ("problem", True)
    for broken in ("run: [", "run: !!python/object:os.system x", "\udc80", "[]"):
        (project / "params.yaml").write_text(broken, errors="surrogateescape")
        assert looked(project)["params.yaml"].status == "problem"


def test_results_without_a_record(project: Path) -> None:
    made = project / "data" / "planted" / "manifest.parquet"
    made.parent.mkdir(parents=True)
    made.write_text("")
    (project / "data" / "mvsa").mkdir()
    (project / "data" / "mvsa" / "manifest.parquet").write_text("")  # of a data set that is not in `run`
    one = looked(project)["results"]
    assert (one.status, "data/planted/manifest.parquet" in one.what, "mvsa" in one.what, "dvc pull" in one.fix) == ("problem", True, False, True)
    record = project / ".snakemake" / "metadata"
    record.mkdir(parents=True)
    (record / urlsafe_b64encode(b"data/planted/manifest.parquet").decode()).write_text("{}")
    assert looked(project)["results"].status == "ok"


def test_locks(project: Path) -> None:
    assert looked(project)["run lock"].what == "free"
    lock = RunLock(project / ".snakemake" / "run.lock")
    lock.acquire()
    assert looked(project)["run lock"].what == "a run is at work in this folder"
    os.close(lock.handle or 0)
    assert looked(project)["run lock"].what == "free"
    (project / ".snakemake" / "locks").mkdir()
    (project / ".snakemake" / "locks" / "0.input.lock").write_text("")
    assert (looked(project)["run lock"].status, looked(project)["run lock"].fix) == ("warning", "snakemake --unlock")


def test_a_lock_of_dvc_whose_holder_is_gone(project: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    file = project / ".dvc" / "tmp" / "rwlock"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"data": {"read": [{"pid": gone.pid, "cmd": "dvc"}], "write": {"pid": os.getpid(), "cmd": "dvc"}}}))
    assert checkout.dead_holders(file) == [gone.pid]
    assert looked(project)["run lock"].fix == "rm .dvc/tmp/rwlock"
    file.write_text("[]")
    assert checkout.dead_holders(file) == []


def test_git_and_make_are_wanted_in_a_checkout(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "tools" not in looked(project)
    (project / "Makefile").write_text("")
    assert looked(project)["tools"].status == "ok"
    monkeypatch.setenv("PATH", str(project))
    assert (looked(project)["tools"].status, looked(project)["tools"].what) == ("problem", "not found: git, make")
