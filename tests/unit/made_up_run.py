"""A whole made-up run below the current folder, as the report stage finds it; its words are hostile."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import polars as pl
from PIL import Image
from tests.unit import synthetic_predictions as synthetic

from causalroute import io, layout
from causalroute.config import Dataset, Evaluate, Replicates
from causalroute.counterfactual.pixels import pack_mask
from causalroute.evaluation.collect import chunks

METHODS = ("majority", "bag_of_words", "text_only", "erm", "double_swap", "causal_moe", "oracle_erm")
SIZES = {"valid": 60, "id": 100, "ood": 100}
HOSTILE = '<script>alert("x")</script>|`[y](z)`'
SOURCE = {"kind": "planted", "files": 7, "bytes": 12345, "digest": "ab" * 32}
PASSED = {"passed": True, "verdict": "passed", "reasons": [], "undecided": []}
FAILED = {"passed": False, "verdict": "failed", "reasons": ["told from real posts"], "undecided": []}
SEEDS = Replicates(seeds=3, per_job=2)
FILES = ("metrics.json", "results.csv", "results.md", "results.tex", "README.md", "report.html", *(f"plots/{name}.csv" for name in layout.PLOTS))


def audit() -> dict[str, Any]:
    token = {"class": "sarcastic", "in_class": 90, "log10_p": -40.2, "log_odds": 2.1, "posts": 100, "share": 0.9, "valid_posts": 20, "valid_share": 0.85}
    return {
        "shortcuts": [{"cue": HOSTILE, "kind": "hashtag", **token}, {"cue": "warmth", "kind": "image", "class": "literal", "auc": 0.4, "log10_p": -9.0}],
        "associations": [{"cue": f"word{i}", "kind": "word", **token} for i in range(20)],
        "counts": {"hashtag": 1, "image": 1},
        "tests": {"made": 1200, "alpha": 0.05, "log10_bar": -4.4},
        "probes": {"text": {"accuracy": 0.9, "low": 0.85, "high": 0.95, "majority": 0.5, "items": 360}},
        "leaks": {"exact_text": 4, "exact_text_train": 3, "near_text": None, "conflicts_text": 2},
        "duplicates": {"exact_text": 5, "near_text": None, "largest_group": 3},
    }


def prepare(data: Dataset, sizes: dict[str, int] = SIZES, visual: str = "image") -> list[str]:
    """A whole run below the current folder; returns the stage's arguments."""
    synthetic.write("toy", data, SEEDS, sizes)
    train = {"items": 300, "labels": {name: 150 - i for i, name in enumerate(data.classes)}}
    summary = {
        "classes": list(data.classes),
        "task": data.task,
        "visual": visual,
        "splits": {"train": train, "id": {"items": 100}},
        "dropped": {HOSTILE: 1},
        "sources": [SOURCE],
    }
    io.write_json(layout.summary("toy"), summary)
    io.write_json(layout.reports("toy") / "audit.json", audit())
    grades = {HOSTILE: {"text": {"usable": 0.9}, "image": {}}, "other": {"text": {"usable": 0.9}, "image": {}, "gate": {"text": PASSED, "image": FAILED}}}
    io.write_json(layout.reports("toy") / "counterfactuals.json", {"known_truth": False, "editors": grades})
    ids = [f"{split}-{i:05d}" for split in ("id", "ood") for i in range(100)]
    write_posts(ids, visual)
    effect = pl.Series(np.tile([2.2, -2.2], 100), dtype=pl.Float32)
    io.write_parquet(layout.truth("toy"), pl.DataFrame({"id": ids, "effect_text": effect, "effect_image": effect}))
    for method in data.methods:
        for first, last in chunks(SEEDS):
            rows = [{"epoch": e, "seed": s, "train/loss": 1 / e, "valid/factual": 0.5 + e / 20} for s in range(first, last + 1) for e in (1, 2, 3)]
            if method == "majority":
                rows = [{"epoch": 0, "seed": s, "valid/factual": 0.5} for s in range(first, last + 1)]
            pl.DataFrame(rows).write_csv(layout.run("toy", method, first, last) / "history.csv")
    config = {"dataset": data, "evaluate": Evaluate(bootstrap=100), "replicates": SEEDS}
    sections = {key: dataclasses.asdict(value) for key, value in config.items()}
    more = {"methods": {method: {} for method in data.methods}, "made_by": {"settings": "0123456789abcdef", "code": "fedcba9876543210"}}
    return ["--dataset", "toy", "--config", json.dumps({**sections, **more})]


def write_posts(ids: list[str], visual: str) -> None:
    """Manifest, one small picture for all posts, and what the editor takes for context; only the first 40 posts were edited."""
    count, pictured = len(ids), visual == "image"
    posts = {
        "id": ids, "split": [name.partition("-")[0] for name in ids], "text": [f"{HOSTILE} post {i} #east" for i in range(count)],
        "image": ["images/a.png" if pictured and i % 5 else None for i in range(count)], "attributes": [None if pictured else f"{HOSTILE} sky"] * count,
        "label": [None] * count, "text_sha256": [f"t{i}" for i in range(count)], "image_sha256": ["v"] * count,
        "pair": [None] * 100 + ids[:30] + [None] * 70,
    }  # fmt: skip
    kinds = {"image": pl.String, "attributes": pl.String, "label": pl.Int8, "pair": pl.String}
    io.write_parquet(layout.manifest("toy"), pl.DataFrame(posts, schema_overrides=kinds))
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:6, 2:6] = True
    edited = {"id": ids[:40], "context_spans": [[{"start": 0, "end": 3}]] * 40, "mask": [pack_mask(mask)] * 40, "mask_side": [8] * 40}
    io.write_parquet(layout.counterfactuals("toy", "estimated"), pl.DataFrame(edited))
    picture = layout.raw("toy") / "images" / "a.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 30), (90, 140, 200)).save(picture)
    Image.new("RGB", (8, 8)).save(layout.reference_image("toy"))
