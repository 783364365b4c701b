"""The command: what it prints and writes, its exit codes, and pages that show posts of strangers."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.test_audit_table import rows, save

from causalroute import io
from causalroute.audit.verdict import MEASURES
from causalroute.cli import run
from causalroute.cli.audit import EXAMPLES
from causalroute.cli.terminal import plain
from causalroute.report.audit_page import render

HOSTILE = '#<script>alert("x")</script>'


def command(path: Path, *extra: str) -> list[str]:
    return ["audit", str(path), "--min-count", "5", "--output-dir", str(path.parent / "out"), *extra]


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("table") / "posts.csv", rows())


def test_it_writes_and_prints(posts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(posts)) == 0
    printed = capsys.readouterr().out
    for words in ("#east", "#north", "SHORTCUTS", "surface", "TOGETHER", "no split column", "tweet_text", "audit.html"):
        assert words in printed
    assert max(map(len, printed.splitlines())) <= 160
    found = io.read_json(posts.parent / "out" / "audit.json")
    assert {cue["cue"] for cue in found["shortcuts"]} == {"#east", "#north"}
    assert found["limits"] == {}
    assert pl.read_csv(posts.parent / "out" / "dropped.csv").columns == ["id", "reason", "where"]


def test_the_same_table_gives_the_same_bytes(posts: Path) -> None:
    written = []
    for _ in range(2):
        assert run(command(posts, "--format", "none")) == 0
        written.append([(posts.parent / "out" / name).read_bytes() for name in ("audit.json", "audit.html")])
    assert written[0] == written[1]


def test_json_is_machine_readable(posts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(posts, "--format", "json", "--control", "fdr", "--alpha", "0.01")) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["tests"]["control"], found["tests"]["alpha"]) == ("fdr", 0.01)


def test_exit_codes(posts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(posts, "--fail-on", "leaks=0", "--fail-on", "joint=0.99")) == 0
    assert run(command(posts, "--fail-on", "joint=0.05", "--fail-on", "leaks=0")) == 1
    assert "limit exceeded: joint is 0." in capsys.readouterr().err
    limits = io.read_json(posts.parent / "out" / "audit.json")["limits"]
    assert limits == {"joint": {"limit": 0.05, "exceeded": True}, "leaks": {"limit": 0.0, "exceeded": False}}
    for wrong in (["--fail-on", "everything=1"], ["--text", "nothing"], ["--alpha", "2"], ["--root", "nowhere", "--image", "mood"]):
        assert run(command(posts, *wrong)) == 2
        assert capsys.readouterr().err.startswith("error: ")
    assert run(["audit", "nowhere.csv"]) == 2
    assert "there is no such table\n  where: nowhere.csv" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run(["audit"])


def test_help_has_examples_and_names_every_measure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(["audit", "--help"])
    printed = capsys.readouterr().out
    assert EXAMPLES.splitlines()[1] in printed
    assert all(name in EXAMPLES for name in MEASURES)
    for option in re.findall(r"--[a-z-]+", EXAMPLES):
        assert option in printed.split("examples:")[0], option


def test_python_m_causalroute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["causalroute", "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("causalroute", run_name="__main__")
    assert capsys.readouterr().out.startswith("causalroute ")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The audit of posts that attack the page, the terminal and the reading direction."""
    folder = tmp_path_factory.mktemp("hostile")
    table = rows()
    for i, post in enumerate(table):
        if post["mood"] == "bad" and i % 3:
            post["tweet_text"] += f" {HOSTILE} \u202e\x1b[2J `code`"
        post["mood"] = {"bad": "<b>bad</b>", "fine": "fine"}[post["mood"]]
        post["split"] = "test" if i % 10 == 0 else "train"
    table[0]["tweet_text"] = table[1]["tweet_text"]
    assert run(command(save(folder / "<img src=x>.csv", table))) == 0
    return dict(io.read_json(folder / "out" / "audit.json")) | {"page": (folder / "out" / "audit.html").read_text()}


def test_the_page_escapes_and_loads_nothing(hostile: dict[str, Any]) -> None:
    page = hostile["page"]
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "<b>bad</b>" not in page
    assert "<img" not in page
    assert not re.search(r"""(?:src|href)=["'](?!#)|url\(|@import|http-equiv="refresh""", page)
    assert page.count("<script>") == page.count("</script>") == 1
    assert "default-src 'none'" in page
    assert "Test posts with a twin" in page
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e]", page), "no word turns the direction of the page"
    assert "\u27e8202E\u27e9" in page, "it is shown instead"


def test_the_page_holds_what_was_found(hostile: dict[str, Any]) -> None:
    page = hostile["page"]
    for part in ("shortcuts", "associations"):
        assert page.count('<th scope="row"><bdi>') >= len(hostile[part])
    assert page.count('data-sort="') > 10 * len(hostile["shortcuts"])
    assert page.count("<svg") == page.count("</svg>") == 2
    assert 'name="viewport"' in page
    assert "prefers-color-scheme:dark" in page


def test_a_page_without_findings(tmp_path: Path) -> None:
    path = save(tmp_path / "posts.csv", rows(rho=0.5))
    assert run(command(path, "--format", "none")) == 0
    found = io.read_json(tmp_path / "out" / "audit.json")
    assert found["shortcuts"] == []
    page = render(found, "quiet")
    assert page.count("None that chance would not explain") == 2
    assert page.count("<svg") == 1


def test_the_terminal_shows_no_control_characters(hostile: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from causalroute.cli.terminal import summary

    printed = summary(hostile, tmp_path)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", printed)


@given(st.text(max_size=60), st.integers(2, 40))
@settings(max_examples=80, deadline=None)
def test_a_cell_of_the_terminal_is_plain(text: str, width: int) -> None:
    shown = plain(text, width)
    assert len(shown) <= width + sum(1 for mark in shown if not mark.isprintable() or not mark.isascii()) + 40
    assert "\n" not in shown
    assert "\x1b" not in shown


def test_a_cell_has_its_width() -> None:
    assert plain("abc", 6) == "abc   "
    assert plain("abcdefgh", 6) == "abcde…"
    assert plain("今日は良い", 6) == "今日… "
