"""Stand-in stages: each writes what it was given, so that a run takes seconds and its files show what they were made from.

Copied into a scratch project as `causalroute/stages/_standin.py`; every stage there is three lines that call `stage`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path

from causalroute import layout


def stage(name: str, version: int) -> None:
    """Runs the stand-in of stage `name`; `version` stands for its code."""
    parser = argparse.ArgumentParser()
    for option in ("--dataset", "--backbone", "--editor", "--views", "--method", "--seeds", "--config", "--threads"):
        parser.add_argument(option, default="")
    for option in ("--editors", "--gated"):
        parser.add_argument(option, nargs="*")
    args = parser.parse_args()
    config = json.loads(args.config)
    words = [name, args.views or args.editor, args.method, args.seeds]
    label = " ".join(word for word in words if word)
    time.sleep(float(os.environ.get("STANDIN_SLEEP", "0")))
    if label == os.environ.get("STANDIN_FAIL"):
        sys.exit(f"error: {label} was told to fail")
    made = {"stage": label, "version": version, "config": config}
    inputs, outputs = files(args)[name]
    made["inputs"] = {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in inputs if Path(path).exists()}
    for path in outputs:
        write(Path(path), made)
    if "STANDIN_LOG" in os.environ:
        with Path(os.environ["STANDIN_LOG"]).open("a") as stream:
            stream.write(label + "\n")


def files(args: argparse.Namespace) -> dict[str, tuple[list[str], list[str]]]:
    """Inputs and outputs of each stage."""
    d, b, e = args.dataset, args.backbone, args.editor
    data, run = f"data/{d}", f"models/{d}/{args.method}/seeds{args.seeds}"
    search = f"models/{d}/{args.method}/search.json"
    posts = [f"{data}/manifest.parquet", *sorted(map(str, Path(f"features/{d}").rglob("*.safetensors")))]
    edited = f"counterfactuals/{d}/reference.png" if e == "reference" else f"counterfactuals/{d}/{e}.parquet"
    predictions = sorted(map(str, Path(f"models/{d}").rglob("predictions.parquet")))
    prepared = ["manifest.parquet", "test.parquet", "truth.parquet", "rewrites.parquet", "dropped.csv", "summary.json"]
    trained = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "pretrain.json"]
    return {
        "fetch": ([], [f"{data}/raw/posts.csv", f"{data}/source.json"]),
        "prepare": ([f"{data}/source.json"], [f"{data}/{name}" for name in prepared]),
        "audit": ([f"{data}/manifest.parquet"], [f"reports/{d}/audit.json", f"{data}/audit.html"]),
        "pretrain": ([], [f"models/backbones/{b}/{name}" for name in trained]),
        "features": ([f"{data}/manifest.parquet", f"counterfactuals/{d}/{args.views}.parquet"], [f"features/{d}/{b}/{args.views}.safetensors"]),
        "tokens": ([f"{data}/manifest.parquet", f"counterfactuals/{d}/{args.views}.parquet"], [f"features/{d}/{b}/tokens/{args.views}.safetensors"]),
        "counterfactuals": ([f"{data}/manifest.parquet"], [edited]),
        "gate": ([f"counterfactuals/{d}/{e}.parquet", f"features/{d}/{b}/{e}.safetensors"], [f"counterfactuals/{d}/{e}.gate.json"]),
        "gallery": (sorted(map(str, Path(f"counterfactuals/{d}").glob("*.gate.json"))), [f"counterfactuals/{d}/gallery.html"]),
        "grade": ([f"{data}/truth.parquet"], [f"reports/{d}/counterfactuals.json"]),
        "search": (posts[:1], [search]),
        "train": ([*posts[:1], search], [f"{run}/weights.safetensors", f"{run}/history.csv", f"{run}/selection.json"]),
        "evaluate": ([f"{run}/weights.safetensors", f"{data}/test.parquet"], [f"{run}/predictions.parquet"]),
        "report": (predictions, [*(f"reports/{d}/{name}" for name in REPORT), f"{data}/errors.html", f"{data}/costs.html"]),
        "ablate": (predictions, [f"reports/{d}/ablation/{name}" for name in ("metrics.json", "results.md", "results.csv")]),
    }


REPORT = ["metrics.json", "results.md", "results.csv", "results.tex", "README.md", "report.html", *(f"plots/{name}.csv" for name in layout.PLOTS)]


def write(path: Path, made: dict[str, object]) -> None:
    """Writes `made`; features are larger than Snakemake's default limit for checksums, metrics have the real layout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(made, sort_keys=True, indent=1)
    if path.name == "metrics.json":
        share = int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) / 0xFFFFFF
        text = json.dumps({"erm": {"ood": {"accuracy": {"mean": share, "low": share - 0.01, "high": share + 0.01, "seeds": 2}}}})
    if path.suffix == ".safetensors":
        text += "\n" * 1_500_000
    path.write_text(text)
