"""The benchmark of a multimodal LLM's features: its code path on any machine, and that it stops at wrong features."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from benchmarks import mllm as benchmark


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "llava", "smolvlm", "gemma3", "internvl"])
def test_it_runs_on_a_few_posts_and_writes_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(sys, "argv", ["mllm", "--cpu-smoke", "--kind", kind, "--out", str(tmp_path)])
    threads = torch.get_num_threads()
    benchmark.main()
    torch.set_num_threads(threads)
    found = json.loads((tmp_path / "mllm.json").read_text(encoding="utf-8"))
    assert [row["way"] for row in found["rows"]] == [benchmark.PLAIN, "batch 1, threads 1", "batch 1, threads 2"]
    assert all(row["chats_per_second"] > 0 and row["peak_mb"] > 0 and row["difference"] <= benchmark.NEAR["float32"] for row in found["rows"])
    assert found["rows"][0]["ratio"] == 1
    assert found["machine"]["versions"][0] == f"torch {torch.__version__}"
    assert found["chats"] == 9


def test_wrong_features_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mllm", "--cpu-smoke", "--out", str(tmp_path)])
    right = benchmark.plain_loop
    monkeypatch.setattr(benchmark, "plain_loop", lambda *given: right(*given).roll(1, 0))
    with pytest.raises(SystemExit, match="features differ"):
        benchmark.main()
    assert not list(tmp_path.iterdir())
