"""The benchmark of a multimodal LLM's features: its code path on any machine, and that it stops at wrong features."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from benchmarks import mllm as benchmark
from benchmarks import mllm_memory
from tests.unit.tiny_posts import tiny

from causalroute.mllm.adapters import Adapters, Plan
from causalroute.rng import torch_generator


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


def test_memory_alive_at_once_is_counted() -> None:
    given = torch.ones(1000)
    with mllm_memory.Living() as living:
        first = given + 1
        first.mul_(2)
        view = first.view(10, 100)[2:]
        assert living.now == 4000, "what was there before, what is written in place and views are no new memory"
        second = first.double()
        assert living.now == living.most == 12000
        del second
        third = torch.cat([view, view])
        assert (living.now, living.most) == (4000 + 6400, 12000)
    assert third.shape == (16, 100)


@pytest.mark.parametrize("kind", ["llava", "mllama"])
def test_memory_of_a_model_is_told_from_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setitem(mllm_memory.MODELS, "own", mllm_memory.Published("some/model", kind, {}, {}))
    row = mllm_memory.measure("own")
    model = tiny(tmp_path / "model", kind)
    assert row["parameters"] == sum(weight.numel() for weight in model.network.parameters())
    assert row["image_tokens"] == {"llava": 16, "mllama": 1}[kind]
    chat = row["tokens"] * 32 * 2
    assert 4 * chat < row["two_chats"] - row["one_chat"] < row["one_chat"] + 100 * chat
    adapters = Adapters(model.network, Plan(experts=4, rank=8, alpha=1.0, dropout=0.0), torch_generator(0))
    assert row["adapter_weights"] == sum(weight.numel() for weight in adapters.parameters())
