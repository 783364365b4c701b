"""Sources: the same bytes in raw whatever happened on the way, and answers a user can act on."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from causalroute import layout
from causalroute.config import Dataset, Source
from causalroute.data.sources import fetch, origin
from causalroute.data.sources import http as http_source
from causalroute.errors import UserError
from causalroute.io import read_json, sha256_file
from causalroute.stages import fetch as fetch_stage

BODY = bytes(range(256)) * 4000


def dataset(*sources: Source, **settings: Any) -> Dataset:
    return Dataset(
        **{
            "format": "table",
            "task": "classification",
            "classes": ("a", "b"),
            "backbone": "x",
            "editor": "x",
            "methods": (),
            "table": "t.csv",
            "sources": sources,
        }
        | settings
    )


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAUSALROUTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(http_source.resume, "__defaults__", (http_source.ATTEMPTS, 0.01))


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`; breaks off half way `drops` times; knows Range unless `ranges` is off."""

    files: ClassVar[dict[str, bytes]] = {}
    drops = 0
    ranges = True
    log: ClassVar[list[tuple[int, str]]] = []

    def do_GET(self) -> None:
        body = self.files.get(self.path)
        if body is None:
            self.log.append((404, ""))
            self.send_error(404)
            return
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if start >= len(body) > 0:
            self.send_error(416)
            return
        self.log.append((206 if start else 200, asked))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        if type(self).drops > 0:
            type(self).drops -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[Server], str]]:
    handler = type("Fresh", (Server,), {"files": {"/d/posts.csv": BODY}, "drops": 0, "log": []})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield handler, f"http://127.0.0.1:{running.server_address[1]}/d/"
    running.shutdown()
    running.server_close()
    thread.join()


def http_of(url: str, body: bytes = BODY, **more: str) -> Source:
    return Source(kind="http", url=url, sha256=hashlib.sha256(body).hexdigest(), **more)


def test_http_resumes_a_broken_download(server: tuple[type[Server], str]) -> None:
    handler, url = server
    handler.drops = 2
    fetch(dataset(http_of(url + "posts.csv")), "d")
    assert (layout.raw("d") / "posts.csv").read_bytes() == BODY
    assert [code for code, _ in handler.log] == [200, 206, 206]
    record = read_json(layout.source("d"))
    assert record["files"] == [{"path": "posts.csv", "bytes": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest()}]
    assert record["sources"][0]["origin"].startswith(url)


def test_http_starts_over_where_the_server_knows_no_range(server: tuple[type[Server], str]) -> None:
    handler, url = server
    handler.drops, handler.ranges = 1, False
    fetch(dataset(http_of(url + "posts.csv")), "d")
    assert (layout.raw("d") / "posts.csv").read_bytes() == BODY


def test_http_goes_on_in_the_next_run(server: tuple[type[Server], str]) -> None:
    handler, url = server
    handler.drops = 99
    with pytest.raises(UserError, match="no complete answer in 5 attempts"):
        fetch(dataset(http_of(url + "posts.csv")), "d")
    assert not layout.raw("d").exists()
    handler.drops = 0
    fetch(dataset(http_of(url + "posts.csv")), "d")
    assert handler.log[-1][0] == 206
    assert (layout.raw("d") / "posts.csv").read_bytes() == BODY


def test_http_uses_the_checked_copy_of_the_cache(server: tuple[type[Server], str]) -> None:
    handler, url = server
    for _ in range(2):
        fetch(dataset(http_of(url + "posts.csv")), "d")
    assert len(handler.log) == 1


def test_http_wrong_checksum_then_right_one(server: tuple[type[Server], str]) -> None:
    handler, url = server
    handler.files["/d/posts.csv"] = b"other"
    with pytest.raises(UserError, match="not the declared one") as failure:
        fetch(dataset(http_of(url + "posts.csv")), "d")
    assert hashlib.sha256(b"other").hexdigest() in str(failure.value)
    assert "sha256 in params.yaml" in failure.value.fix
    assert not layout.raw("d").exists()
    handler.files["/d/posts.csv"] = BODY
    fetch(dataset(http_of(url + "posts.csv")), "d")


def test_http_404_is_not_asked_again(server: tuple[type[Server], str]) -> None:
    handler, url = server
    with pytest.raises(UserError, match="404"):
        fetch(dataset(http_of(url + "absent.csv")), "d")
    assert len(handler.log) == 1


def test_http_no_network() -> None:
    with pytest.raises(UserError, match="Connection refused") as failure:
        fetch(dataset(http_of("http://127.0.0.1:9/posts.csv")), "d")
    assert "source of kind local" in failure.value.fix
    with pytest.raises(UserError, match="neither http nor https"):
        fetch(dataset(http_of("file:///etc/hostname")), "d")


def test_http_unpacks_archives(server: tuple[type[Server], str]) -> None:
    handler, url = server
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("images/1.txt", "one")
    handler.files["/d/a.zip"] = stream.getvalue()
    fetch(dataset(http_of(url + "a.zip", stream.getvalue(), into="set")), "d")
    assert (layout.raw("d") / "set/images/1.txt").read_text() == "one"


def test_local_copies_exactly_and_sweeps_strangers(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "img").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    (folder / "t.csv").write_bytes(b"a\r\n\xff")
    (folder / "img" / "1.jpg").write_bytes(b"jpg")
    (folder / "again.csv").symlink_to("t.csv")
    source = Source(kind="local", path="mine")
    fetch(dataset(source), "d")
    first = layout.source("d").read_bytes()
    (layout.raw("d") / "stranger").write_text("x")
    (layout.raw("d").with_name(".raw.part")).mkdir()  # what a killed run leaves behind
    (layout.raw("d").with_name(".raw.part") / "half").write_text("x")
    fetch(dataset(source), "d")
    assert layout.source("d").read_bytes() == first
    assert sorted(path.relative_to(layout.raw("d")).as_posix() for path in layout.raw("d").rglob("*")) == ["again.csv", "img", "img/1.jpg", "t.csv"]
    assert sorted(path.name for path in layout.raw("d").parent.iterdir()) == ["raw", "source.json"]


def test_local_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist") as failure:
        fetch(dataset(Source(kind="local", path="external/mvsa"), format="mvsa", table=""), "d")
    assert "MCRLab" in failure.value.fix
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(UserError, match="brought no file"):
        fetch(dataset(Source(kind="local", path="mine")), "d")
    (tmp_path / "outside").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="link leaves the data folder"):
        fetch(dataset(Source(kind="local", path="mine")), "d")
    (folder / "link").unlink()
    (folder / "t.csv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UserError, match="LFS pointer"):
        fetch(dataset(Source(kind="local", path="mine")), "d")
    (folder / "t.csv").write_text("a")
    with pytest.raises(UserError, match="two sources bring the file"):
        fetch(dataset(Source(kind="local", path="mine"), Source(kind="local", path="mine/t.csv")), "d")
    with pytest.raises(UserError, match="leaves the raw folder"):
        fetch(dataset(Source(kind="local", path="mine", into="../up")), "d")
    assert not layout.raw("d").exists()


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> tuple[str, str]:
    folder = tmp_path / "repo"
    (folder / "data" / "text").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / ".gitattributes").write_text("*.txt text eol=crlf filter=lfs\n")
    (folder / "data" / "text" / "a.txt").write_bytes(b"one\ntwo\n")
    (folder / "other.txt").write_text("not wanted\n")
    git(folder, "-c", "filter.lfs.clean=", "-c", "filter.lfs.smudge=", "-c", "filter.lfs.process=", "-c", "filter.lfs.required=false", "add", ".")
    git(folder, "commit", "-qm", "first")
    first = git(folder, "rev-parse", "HEAD")
    (folder / "data" / "text" / "a.txt").write_bytes(b"changed\n")
    git(folder, "-c", "filter.lfs.process=", "-c", "filter.lfs.clean=", "-c", "filter.lfs.required=false", "commit", "-qam", "second")
    return folder.as_uri(), first


def test_git_brings_the_very_bytes_of_the_pinned_commit(repository: tuple[str, str]) -> None:
    url, commit = repository
    fetch(dataset(Source(kind="git", url=url, revision=commit, path="data/text", into="mmsd/text")), "d")
    files = [path for path in layout.raw("d").rglob("*") if path.is_file()]
    assert [path.relative_to(layout.raw("d")).as_posix() for path in files] == ["mmsd/text/a.txt"]
    assert files[0].read_bytes() == b"one\ntwo\n"
    assert origin(Source(kind="git", url=url, revision=commit, path="data/text")) == f"{url}@{commit}:data/text"
    fetch(dataset(Source(kind="git", url=url, revision=commit)), "all")
    assert (layout.raw("all") / "other.txt").is_file()
    assert not (layout.raw("all") / ".git").exists()


def test_git_wrong_input(repository: tuple[str, str], tmp_path: Path) -> None:
    url, commit = repository
    with pytest.raises(UserError, match="has no 'data/txt'") as failure:
        fetch(dataset(Source(kind="git", url=url, revision=commit, path="data/txt")), "d")
    assert "other.txt" in failure.value.fix
    with pytest.raises(UserError, match="git fetch failed"):
        fetch(dataset(Source(kind="git", url=url, revision="0" * 40)), "d")
    with pytest.raises(UserError, match="git fetch failed") as failure:
        fetch(dataset(Source(kind="git", url=(tmp_path / "absent").as_uri(), revision=commit)), "d")
    assert "absent" in str(failure.value)
    with pytest.raises(UserError):
        fetch(dataset(Source(kind="git", url=url, revision=commit, path="../..")), "d")


def test_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    source = Source(kind="hub", repo="someone/set", revision="a" * 40, path="part")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="hub data set could not be fetched"):
        fetch(dataset(source), "d")

    def download(repo: str, *, repo_type: str, revision: str, allow_patterns: list[str], local_dir: Path) -> str:
        assert (repo, repo_type, revision, allow_patterns) == ("someone/set", "dataset", "a" * 40, ["part", "part/**"])
        (local_dir / "part").mkdir(parents=True)
        (local_dir / "part" / "t.csv").write_text("x")
        return str(local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    fetch(dataset(source), "d")
    assert (layout.raw("d") / "t.csv").read_text() == "x"


def test_stage(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "t.csv").write_text("x")
    section = {"format": "table", "task": "classification", "classes": ["a", "b"], "backbone": "x", "editor": "x", "methods": [], "table": "t.csv"}
    section |= {"sources": [{"kind": "local", "path": "mine"}]}
    assert fetch_stage.main(["--dataset", "d", "--config", json.dumps({"dataset": section})]) == 0
    assert sha256_file(layout.raw("d") / "t.csv") == read_json(layout.source("d"))["files"][0]["sha256"]
