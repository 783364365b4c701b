"""The stages train and evaluate with a method that reads raw posts: one command each, from files to files."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from PIL import Image
from tests.unit.tiny_posts import PROMPT, features, tables, tiny

from causalroute import io, layout
from causalroute.errors import UserError
from causalroute.io import canonical_json, ids_digest
from causalroute.mllm.posts import Reader, Views
from causalroute.stages import evaluate, train

pytestmark = pytest.mark.slow

NAME, SIZES = "talks", {"train": 24, "valid": 8, "ood": 6}
BUDGET = {"epochs": 2, "batch_size": 20, "lr": 0.005}
METHOD = {"context_steps": 20, "router": "rule", "lr": 1.0, "per_kind": 2, "pass_size": 32}
ROWS = sum(SIZES.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with images, two editors and cached features, as the earlier stages leave them."""
    root = tmp_path_factory.mktemp("stages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        mllm = tiny(Path("model"))
        manifest, edited = tables(layout.raw(NAME), SIZES)
        hidden = pl.col("split") == "ood"
        io.write_parquet(layout.test_labels(NAME), manifest.filter(hidden).select("id", "split", "label"))
        io.write_parquet(layout.manifest(NAME), manifest.with_columns(pl.when(hidden).then(None).otherwise(pl.col("label")).alias("label")))
        layout.reference_image(NAME).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(layout.reference_image(NAME))
        digest = {"ids_sha256": ids_digest(manifest["id"])}
        rows, reader = torch.arange(ROWS), Reader(mllm, manifest["id"].to_list(), Views(manifest, edited, None, layout.reference_image(NAME)), layout.raw(NAME))
        io.write_tensors(layout.features(NAME, "some", "factual"), {view: features(reader, rows, view).half() for view in "tv"}, digest)
        views = {view: features(reader, rows, view).half() for view in ("t_s", "t_c", "t_swap", "v_s", "v_c", "v_swap")}
        for editor in ("mine", "theirs"):
            io.write_parquet(layout.counterfactuals(NAME, editor), edited.with_columns(pl.lit(True).alias("text_ok"), pl.lit(True).alias("image_ok")))
            io.write_tensors(layout.features(NAME, "some", editor), {"rows": rows, **views}, digest)
            io.write_json(layout.gate(NAME, editor), {side: {"passed": True, "reasons": []} for side in ("text", "image")})
    return root


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def config(**sections: object) -> str:
    dataset = {
        "format": "planted",
        "task": "sarcasm",
        "classes": ["dull", "glad"],
        "positive": "glad",
        "backbone": "some",
        "editor": "mine",
        "held_out": "theirs",
    }
    asked = {"prompts": [{"question": PROMPT.question, "text": PROMPT.text, "answers": PROMPT.answers}], "device": "cpu"}
    backbone = {"kind": "mllm", "model": "model", "mllm": asked}
    return canonical_json({"dataset": {**dataset, "methods": ["lora_moe"], "sources": [{"kind": "planted"}]}, "backbone": backbone, **sections})


def stages(method: dict[str, object]) -> bytes:
    head = ["--dataset", NAME, "--method", "lora_moe", "--seeds", "0-1"]
    assert train.main([*head, "--config", config(train=BUDGET, method=method)]) == 0
    assert evaluate.main([*head, "--config", config(evaluate={}, method=method)]) == 0
    return (layout.run(NAME, "lora_moe", 0, 1) / "predictions.parquet").read_bytes()


@pytest.fixture(scope="module")
def predictions(folder: Path) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return stages(METHOD)


def test_one_command_each_trains_and_evaluates_to_the_same_bytes(predictions: bytes) -> None:
    out = layout.run(NAME, "lora_moe", 0, 1)
    weights = (out / "weights.safetensors").read_bytes()
    frame = pl.read_parquet(out / "predictions.parquet")
    views = ["factual", "swap_t", "swap_v", "swap_tv", "held_t", "held_v", "held_tv", "context", "core"]
    assert frame["view"].unique(maintain_order=True).to_list() == views
    assert frame.height == 2 * len(views) * (SIZES["valid"] + SIZES["ood"])
    assert frame["p"].list.sum().to_list() == pytest.approx([1.0] * frame.height, abs=1e-4)
    for name in ("te", "nde_t", "nde_v", "nde_tv", "gates", "experts"):
        assert frame[name].null_count() == 0
    assert frame["experts"].list.len().unique().to_list() == [8]
    assert stages(METHOD) == predictions
    assert (out / "weights.safetensors").read_bytes() == weights


def test_the_weights_file_holds_no_weight_of_the_model_and_the_cost_counts_what_trains(predictions: bytes) -> None:
    tensors, _ = io.read_tensors(layout.run(NAME, "lora_moe", 0, 1) / "weights.safetensors")
    assert {name.split("/")[1].split(".")[0] for name in tensors if name.startswith("seed")} == {"adapters", "head", "evidence", "within"}
    trains = [value for name, value in tensors.items() if name.startswith("seed0/") and name.split("/")[1].split(".")[0] in ("adapters", "head", "within")]
    cost = json.loads((layout.events(NAME, "lora_moe", 0, 1) / "cost.json").read_text())
    assert cost["parameters"] == sum(value.numel() for value in trains)
    assert not (layout.run(NAME, "lora_moe", 0, 1) / ".resume").exists()


def test_a_method_that_reads_posts_needs_the_backbone() -> None:
    head = ["--dataset", NAME, "--method", "lora_moe", "--seeds", "0-0"]
    other = json.loads(config(train=BUDGET, method=METHOD))
    other["backbone"] = {"kind": "dual_encoder", "model": "model"}
    with pytest.raises(UserError, match="which this backbone is not"):
        train.main([*head, "--config", canonical_json(other)])
    del other["backbone"]
    with pytest.raises(UserError, match="lacks the section 'backbone'"):
        train.main([*head, "--config", canonical_json(other)])
