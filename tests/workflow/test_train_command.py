"""`causalroute train` from a table to a saved model with the real stages: ended by Ctrl-C, resumed, up to date, changed; and the commands on what it made."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from causalroute.data.formats.table import open_table
from tests.unit.small_posts import SMALL, write_table
from tests.workflow.project import ROOT

pytestmark = pytest.mark.slow
FLAGS = ("--backbone", "small", "--methods", "text_only", "erm", "double_swap", "--seeds", "2", "--epochs", "3", "--cores", "2")


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "CAUSALROUTE_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "causalroute", *words]
    # A shell that runs the tests in the background ignores Ctrl-C, and so would every process started here: a handler of Python's own is not inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def call(folder: Path, *words: str, code: int = 0) -> tuple[str, str]:
    """What the command prints on standard output and standard error."""
    process = start(folder, *words)
    out, err = process.communicate(timeout=900)
    assert process.returncode == code, f"{out[-3000:]}\n{err[-5000:]}"
    return out, err


def train(folder: Path, *words: str, code: int = 0) -> tuple[str, str]:
    changes = [word for change in SMALL for word in ("--config", change)]
    return call(folder, "train", "posts.csv", *FLAGS, *changes, *words, code=code)


def steps(text: str) -> list[str]:
    """Finished steps, in plain words."""
    return [match.strip() for match in re.findall(r"^  \[ *\d+/\d+\] (.*?)  +[\d.]", text, re.MULTILINE)]


def at_work(folder: Path) -> list[str]:
    """Command lines of processes that work in the project."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() == (folder / "causalroute-run").resolve():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [command for command in found if "causalroute.stages" in command or "snakemake" in command]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """A project whose first run was ended by Ctrl-C after three steps: its folder, those steps, and what was said."""
    folder = tmp_path_factory.mktemp("train")
    write_table(folder)
    changes = [word for change in SMALL for word in ("--config", change)]
    process = start(folder, "train", "posts.csv", *FLAGS, *changes)
    assert process.stderr is not None
    said = ""
    while len(steps(said)) < 3:
        line = process.stderr.readline()
        assert line, said
        said += line
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130
    return folder, steps(said + rest), said + rest


@pytest.fixture(scope="module")
def finished(interrupted: tuple[Path, list[str], str]) -> tuple[Path, str, str]:
    """The same after the same command: its folder, output and errors."""
    folder, _, _ = interrupted
    return (folder, *train(folder))


def test_ctrl_c_ends_everything_and_says_how_to_go_on(interrupted: tuple[Path, list[str], str]) -> None:
    folder, _, said = interrupted
    assert "run the same command again to go on" in said
    assert "Traceback" not in said
    assert at_work(folder) == []


def test_the_same_command_goes_on_and_tells_the_answer(interrupted: tuple[Path, list[str], str], finished: tuple[Path, str, str]) -> None:
    folder, out, err = finished
    done = steps(err)
    assert not set(done) & set(interrupted[1]), "what was finished is not done again"
    wanted = {"training erm", "training causal_moe", "testing double_swap", "encoding counterfactuals (single)", "writing the report"}
    assert wanted <= set(done) | set(interrupted[1])
    for words in ("ANSWER", "The audit found", "#sunny", "Posts: ", "No out-of-distribution test", "causalroute predict causalroute-run/model"):
        assert words in out
    for path in ("reports/posts/report.html", "data/posts/audit.html", "counterfactuals/posts/gallery.html", "model/config.json"):
        assert (folder / "causalroute-run" / path).is_file(), path
        assert path.removesuffix("config.json") in out
    assert json.loads((folder / "causalroute-run" / "model" / "config.json").read_text())["method"] == "causal_moe"


def test_then_nothing_is_to_be_done_and_a_change_does_what_depends_on_it(finished: tuple[Path, str, str]) -> None:
    folder, _, _ = finished
    weights = folder / "causalroute-run" / "models" / "posts" / "erm" / "seeds0-1" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    out, err = train(folder)
    assert "up to date: nothing to be done" in out
    assert steps(err) == []
    out, err = train(folder, "--config", "evaluate.bootstrap=60")
    assert set(steps(err)) <= {"testing text_only", "testing erm", "testing double_swap", "testing causal_moe", "writing the report"}
    assert "writing the report" in steps(err)
    assert "up to date" not in out
    assert weights.stat().st_mtime_ns == before
    params = folder / "causalroute-run" / "params.yaml"
    edited = params.read_text().replace("bootstrap: 60", "bootstrap: 70")
    params.write_text(edited)
    out, err = train(folder, "--config", "evaluate.bootstrap=60")
    assert "has your edits, kept" in err
    assert "writing the report" in steps(err)
    _, err = train(folder, code=2)
    assert "has edits that this call would undo" in err
    assert params.read_text() == edited


def test_report_and_evaluate_work_on_what_was_made(finished: tuple[Path, str, str]) -> None:
    folder, _, _ = finished
    out, err = call(folder, "report")
    assert "ANSWER" in out
    assert set(steps(err)) <= {"writing the report"}
    page = folder / "causalroute-run" / "reports" / "posts" / "report.html"
    page.unlink()
    _, err = call(folder, "report", "causalroute-run")
    assert steps(err) == ["writing the report"]
    assert page.is_file()
    out, _ = call(folder, "evaluate", "causalroute-run/model", "posts.csv", "--format", "json")
    assert 0.3 <= json.loads(out)["metrics"]["accuracy"]["value"] <= 1


def test_a_changed_table_is_brought_anew(finished: tuple[Path, str, str]) -> None:
    folder, _, _ = finished
    (folder / "posts.csv").write_text((folder / "posts.csv").read_text() + "coffee again lovely #sunny,,positive\n")
    _, err = train(folder, "--force", "--config", "datasets.posts.expected={train: 5}", code=2)  # which ends the run behind these steps
    assert "bringing the table and its images" in steps(err)
    assert "not the declared number of usable posts: train: " in err
    _, rows = open_table(folder / "causalroute-run" / "data" / "posts" / "raw" / "posts.csv")
    assert len(list(rows)) == 151


def test_a_table_without_images_and_a_step_that_fails(tmp_path: Path) -> None:
    write_table(tmp_path, images=False)
    _, err = train(tmp_path, "--config", "datasets.posts.expected={train: 5}", code=2)
    for words in ("error: not the declared number of usable posts: train: 90 instead of 5", "  fix:   ", "  log:   causalroute-run/logs/posts/prepare.log"):
        assert words in err
    assert at_work(tmp_path) == []
    out, err = train(tmp_path, "--methods", "erm")
    assert "ANSWER" in out
    assert "encoding posts" in steps(err)
    assert (tmp_path / "causalroute-run" / "reports" / "posts" / "report.html").is_file()
