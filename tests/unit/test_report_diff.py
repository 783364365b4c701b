"""The pull-request comment, on a scratch repository with two branches."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from causalroute.evaluation.metrics import registry

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "report_diff.py"
PARAMS = {"train": {"lr": 0.001, "epochs": 40}, "methods": {"erm": {}}, "run": ["planted"]}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_diff", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["report_diff"] = module
    spec.loader.exec_module(module)
    return module


diff = load()


def value(mean: float, half: float = 0.01) -> dict[str, Any]:
    return {"mean": mean, "low": mean - half, "high": mean + half, "seeds": 5}


def reports(moe: float, erm: float, nll: float = 0.5) -> dict[str, Any]:
    return {
        "causal_moe": {"ood": {"accuracy": value(moe), "nll": value(nll)}, "id": {"accuracy": value(0.95)}, "group:cue": {"ood/agrees": value(moe)}},
        "erm": {"ood": {"accuracy": value(erm)}},
    }


class Repository:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "Test")
        self.git("config", "user.email", "test@example.org")

    def git(self, *words: str) -> None:
        subprocess.run(["git", *words], cwd=self.folder, check=True, capture_output=True)

    def commit(self, metrics: dict[str, Any], params: dict[str, Any], curve: list[float], name: str = "planted") -> None:
        plots = self.folder / "reports" / name / "plots"
        plots.mkdir(parents=True, exist_ok=True)
        (plots.parent / "metrics.json").write_text(json.dumps(metrics))
        rows = "".join(f"causal_moe,{epoch},5,0.1,{accuracy}\n" for epoch, accuracy in enumerate(curve, 1))
        (plots / "history.csv").write_text("method,epoch,seeds,train_loss,valid_accuracy\n" + rows)
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params))
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "results")

    def report(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(SCRIPT), *words], cwd=self.folder, capture_output=True, text=True, check=False)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    found = Repository(tmp_path)
    found.commit(reports(0.90, 0.30), PARAMS, [0.5, 0.7, 0.9])
    found.git("checkout", "-q", "-b", "branch")
    return found


def test_a_better_branch_passes_and_tells_what_moved(repository: Repository) -> None:
    repository.commit(reports(0.94, 0.30, nll=0.4), {**PARAMS, "train": {"lr": 0.003, "epochs": 40}}, [0.6, 0.8, 0.95])
    done = repository.report("main", "branch", "--out", "comment.md")
    assert (done.returncode, done.stderr) == (0, "")
    text = (repository.folder / "comment.md").read_text()
    assert text.startswith(diff.MARK)
    assert "gate holds" in text
    assert "| causal_moe | ood | accuracy | 0.9000 [0.890, 0.910] | 0.9400 [0.930, 0.950] | 🟢 ▲ +0.0400 | apart |" in text
    assert "🟢 ▼ -0.1000 | apart |" in text, "a lower negative log-likelihood is better"
    assert "| `train.lr` | `0.001` | `0.003` |" in text
    assert "train.epochs" not in text
    assert "| erm |" not in text
    assert "```mermaid\nxychart-beta" in text
    assert "line [0.6000, 0.8000, 0.9500]" in text


def test_a_fall_beyond_the_interval_fails(repository: Repository) -> None:
    repository.commit(reports(0.80, 0.30), PARAMS, [0.5, 0.7, 0.9])
    done = repository.report("main")
    assert done.returncode == 1
    assert "gate fails" in done.stdout
    assert "❌ planted: causal_moe:ood:accuracy: 0.8000, before 0.9000 [0.890, 0.910]" in done.stdout
    assert "🔴 ▼ -0.1000" in done.stdout


def test_a_fall_within_the_interval_passes(repository: Repository) -> None:
    repository.commit(reports(0.895, 0.30), PARAMS, [0.5, 0.7, 0.9])
    done = repository.report("main")
    assert done.returncode == 0
    assert "| overlap |" in done.stdout


def test_nothing_changed(repository: Repository) -> None:
    done = repository.report("main", "branch")
    assert done.returncode == 0
    assert "No metric changed." in done.stdout
    assert "Settings" not in done.stdout


def test_a_new_data_set_a_gone_method_and_own_gates(repository: Repository) -> None:
    without = {"erm": reports(0.9, 0.2)["erm"]}
    repository.commit(without, PARAMS, [])
    repository.commit(reports(0.7, 0.2), PARAMS, [0.5], name="mine")
    done = repository.report("main", "branch")
    assert done.returncode == 1
    assert "causal_moe:ood:accuracy: no value any more" in done.stdout
    assert "### mine" in done.stdout
    assert "| new |" in done.stdout
    assert "| gone |" in done.stdout
    assert repository.report("main", "branch", "--gate", "erm:ood:accuracy>=0.1").returncode == 0
    assert repository.report("main", "branch", "--gate", "erm:ood:accuracy>=0.25").returncode == 1


def test_an_unknown_revision_is_told(repository: Repository) -> None:
    done = repository.report("nowhere")
    assert done.returncode != 0
    assert "git does not know the revision 'nowhere'" in done.stderr
    assert "Traceback" not in done.stderr


def test_directions_are_those_of_the_metrics() -> None:
    for name, metric in registry(1).items():
        assert diff.higher_is_better(name) is metric.higher_is_better, name
    moved = diff.Change("causal_moe", "ood", "gate_entropy", value(0.2), value(0.4))
    assert moved.moved == pytest.approx(0.2)
    assert moved.better is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_sparklines_are_short_and_reach_both_ends(values: list[float]) -> None:
    line = diff.sparkline(values, min(values), max(values))
    assert 1 <= len(line) <= 24
    assert set(line) <= set(diff.BARS)


@given(st.dictionaries(st.text("abc", min_size=1), st.integers() | st.dictionaries(st.text("xyz", min_size=1), st.integers(), min_size=1)))
def test_flat_loses_nothing(nested: dict[str, Any]) -> None:
    leaves = sum(len(part) if isinstance(part, dict) else 1 for part in nested.values())
    assert len([key for key in diff.flat(nested) if key]) == leaves


def test_missing_values_are_shown_as_such() -> None:
    assert diff.number(None) == "-"
    assert diff.number({"mean": None}) == "-"
    assert diff.number({"mean": 0.5, "low": None, "high": None}) == "0.5000"
    assert diff.cell("a|b`c") == "`a\\|b'c`"
