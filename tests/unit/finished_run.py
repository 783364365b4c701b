"""A finished run of a small planted data set on tiny models, made by the stages themselves, in this process."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from tests.unit.tiny_mllm import save_mllm
from tests.unit.tiny_models import save_bert, save_clip, save_mobilenet

from causalroute import layout, plan
from causalroute.config import Config, parse
from causalroute.evaluation.calibration import soften
from causalroute.io import canonical_json
from causalroute.serving.posts import Post
from causalroute.serving.predictor import Predictor

NAME = "small"
PLANTED = {"seed": 0, "train": 120, "valid": 60, "test": 40, "rho_text": 0.9, "rho_image": 0.9, "label_noise": 0.0}
METHODS: dict[str, dict[str, Any]] = {
    "erm": {},
    "bag_of_words": {},
    "double_swap": {},
    "subtraction": {},
    "causal_moe": {"context_steps": 40, "per_kind": 2},
    "causal_moe@learned": {"context_steps": 40, "router": "learned"},
}
PROMPT = {"question": "Is this post sarcastic?", "answers": {"literal": "no", "sarcastic": "yes"}}
BACKBONES: dict[str, dict[str, Any]] = {
    "clip": {"kind": "dual_encoder", "model": "{name}"},
    "pair": {"kind": "encoder_pair", "text_model": "{name}/text", "image_model": "{name}/image"},
    "mllm": {"kind": "mllm", "model": "{name}", "mllm": {"prompts": [PROMPT], "image_side": 48}},
}


def _backbone(kind: str, name: str) -> dict[str, Any]:
    """The entry of a backbone whose models lie in the folder `name`."""
    found = {key: value.format(name=name) if isinstance(value, str) else value for key, value in BACKBONES[kind].items()}
    return {**found, "batch_size": 8}


def _save(kind: str, folder: Path) -> None:
    if kind == "clip":
        save_clip(folder)
    elif kind == "mllm":
        save_mllm(folder, "llava")
    else:
        save_bert(folder / "text")
        save_mobilenet(folder / "image")


def params(kind: str, editor: Mapping[str, Any], looker: str = "", **dataset: Any) -> dict[str, Any]:
    """params.yaml of the run; `kind` and `looker` are keys of BACKBONES, by whose names their folders go: `tiny` and `eyes`."""
    backbones = {"tiny": _backbone(kind, "tiny")} | ({"eyes": _backbone(looker, "eyes")} if looker else {})
    chosen = {
        "format": "planted",
        "task": "sarcasm",
        "classes": ["literal", "sarcastic"],
        "positive": "sarcastic",
        "backbone": "tiny",
        "editor": "mine",
        "looker": "eyes" if looker else "",
        "methods": list(METHODS),
        "sources": [{"kind": "planted"}],
        "planted": PLANTED,
    }
    return {
        "run": [NAME],
        "replicates": {"seeds": 2, "per_job": 1},
        "train": {"epochs": 3, "batch_size": 32, "hidden": 16},
        "methods": METHODS | {name: {} for name in dataset.get("methods", ()) if name not in METHODS},
        "editors": {"mine": {"text": "lexicon", "image": "saliency", "swaps": 1, "z": 2.0, **editor}},
        "gate": {"folds": 2, "min_posts": 20, "max_auc": 1.0, "max_cue_left": 9.0, "min_label_kept": -9.0},
        "evaluate": {"bootstrap": 50},
        "datasets": {NAME: chosen | dataset},
        "backbones": backbones,
    }


def finish(root: Path, kind: str = "clip", editor: Mapping[str, Any] | None = None, looker: str = "", **dataset: Any) -> Path:
    """Runs every stage up to the predictions in `root`, which is returned."""
    values = params(kind, editor or {}, looker, **dataset)
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    _save(kind, root / "tiny")
    if looker:
        _save(looker, root / "eyes")
    config = parse(Config, canonical_json(values), where="params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for stage, asked, extra in _jobs(config):
            arguments = [text for key, value in {**asked, **extra}.items() for text in (f"--{key}", value)]
            settings = plan.stage_config(config, stage, **{key: value for key, value in asked.items() if value != "reference"})
            with contextlib.redirect_stderr(io.StringIO()):
                assert import_module(f"causalroute.stages.{stage}").main([*arguments, "--config", settings]) == 0
    return root


def _jobs(config: Config) -> list[tuple[str, dict[str, str], dict[str, str]]]:
    """Stage, what its settings are asked for, and its other arguments, in order."""
    data = {"dataset": NAME}
    jobs = [("fetch", data, {}), ("prepare", data, {}), ("counterfactuals", data | {"editor": "reference"}, {})]
    jobs += [("features", data | {"backbone": name}, {"views": "factual"}) for name in config.backbones]
    jobs += [("counterfactuals", data | {"editor": "mine", "backbone": plan.looker(config, NAME)}, {})]
    jobs += [("features", data | {"backbone": "tiny"}, {"views": "mine"}), ("gate", data | {"editor": "mine", "backbone": "tiny"}, {})]
    for method in config.datasets[NAME].methods:
        for span in plan.chunks(config.replicates):
            jobs += [(stage, data | {"method": method}, {"seeds": span}) for stage in ("train", "evaluate")]
    return jobs


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a saved model."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def posts_of(root: Path, split: str) -> tuple[pl.DataFrame, list[Post]]:
    """Rows of the manifest, and the posts as they are put to a saved model."""
    rows = pl.read_parquet(root / layout.manifest(NAME)).filter(pl.col("split") == split)
    raw = root / layout.raw(NAME)
    return rows, [Post(text, raw / image) for text, image in rows.select("text", "image").iter_rows()]


def written(root: Path, predictor: Predictor, method: str, split: str) -> np.ndarray:
    """What `evaluate` wrote, after temperature: mean over seeds (M, C)."""
    found = []
    for seed, temperature in enumerate(predictor.config["temperatures"][method]):
        rows = pl.read_parquet(root / layout.run(NAME, method, seed, seed) / "predictions.parquet").filter(split=split, view="factual")
        found.append(soften(np.array(rows["p"].to_list(), dtype=float), temperature))
    return np.mean(found, 0)
