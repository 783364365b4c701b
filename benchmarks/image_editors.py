"""Image editors against the planted truth: how well each finds the core, and what edits on pixels and on patch features give away.

    PYTHONPATH=src python -m benchmarks.image_editors --data data/planted --backbone models/backbones/planted_clip

Needs what `make reproduce` leaves of the planted set. Two tables, on train and validation posts alone:

1. per editor: IoU of the wide mask against the true ellipse, masks that cut the core, swaps that fail, time a post;
2. the truth's own masks, edited on pixels (core filled with the mean, or painted in) and on patch features: balanced accuracy of cross-fitted linear
   probes. `face in v_s`, `cue in v_c` and `own cue in v_swap` should be at chance (.5), `face in v_swap` and `donor's cue in v_swap` high; `told from real`
   is a probe of v_swap against v. Donors are drawn at random here, so that own and donor's cue tell nothing of each other.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from causalroute.config import Backbone as Settings
from causalroute.config import Editor
from causalroute.counterfactual.build import build
from causalroute.counterfactual.grade import grade
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.views import view_inputs
from causalroute.features.backbone import load_backbone
from causalroute.features.build import windows_of
from causalroute.features.encode import encode
from causalroute.features.encoding import Encoding
from causalroute.features.pooled import Patches, patch_views
from causalroute.features.store import Store
from causalroute.io import ids_digest, write_tensors
from causalroute.rng import generator

EDITORS = ("truth", "saliency", "occlusion", "attention", "similarity", "centre", "random")
GRADES = ("iou", "iou_p10", "core_cut", "failed")
FOLDS = 4
Features = dict[str, NDArray[np.float32]]


def editor_table(manifest: pl.DataFrame, truth: pl.DataFrame, sources: Callable[[str], Sources]) -> dict[str, dict[str, float]]:
    """Grades and milliseconds a post of every editor."""
    found = {}
    text_only = _seconds(manifest.with_columns(image=pl.lit(None, pl.String)), "random", sources("random"))
    for name in EDITORS:
        start = time.perf_counter()
        table = build(manifest, Editor(text="lexicon", image=name), sources(name))
        spent = time.perf_counter() - start - text_only
        image = grade(table, manifest, truth)["image"]
        found[name] = {key: round(image[key], 3) for key in GRADES} | {"ms": round(1000 * spent / manifest.height, 1)}
    return found


def _seconds(manifest: pl.DataFrame, name: str, sources: Sources) -> float:
    """Time of the text side, which every editor shares."""
    start = time.perf_counter()
    build(manifest, Editor(text="lexicon", image=name), sources)
    return time.perf_counter() - start


def leak_table(manifest: pl.DataFrame, truth: pl.DataFrame, sources: Sources, folder: Path) -> dict[str, dict[str, float]]:
    """What linear probes read in the views of the truth's masks, by level."""
    table = build(manifest, Editor(text="truth", image="truth", swaps=1), sources)
    ids = manifest["id"].to_list()
    drawn = generator(0, "donors").integers(0, len(ids), len(ids))
    table = table.with_columns(pl.Series("v_donor", [[ids[row]] for row in drawn]))
    known = manifest.select("id").join(truth, on="id", how="left", maintain_order="left")
    face, cue = known["core_image"].to_numpy(), known["cue_image"].to_numpy()
    settings, name = sources.backbone or (None, "")
    assert settings is not None
    backbone = load_backbone(settings, name)
    plain = Encoding(backbone, Store(folder, backbone.key), sources.root)
    found: dict[str, dict[str, float]] = {}
    for fill in ("mean", "blur", "telea"):
        found[f"pixels, {fill}"] = _reads(_pixel_views(manifest, table.with_columns(fill=pl.lit(fill)), plain), face, cue, cue[drawn])
    found["patches"] = _reads(_patch_views(manifest, table, plain, folder), face, cue, cue[drawn])
    return found


def _pixel_views(manifest: pl.DataFrame, table: pl.DataFrame, job: Encoding) -> Features:
    return {
        view: job.store.pooled(encode(job, view_inputs(manifest, None if view == "v" else table, view))).float().numpy()
        for view in ("v", "v_s", "v_c", "v_swap")
    }


def _patch_views(manifest: pl.DataFrame, table: pl.DataFrame, job: Encoding, folder: Path) -> Features:
    with_tokens = Encoding(job.backbone, job.store, job.root, tokens=True)
    keys = encode(with_tokens, view_inputs(manifest, None, "v"))
    digest, path = ids_digest(manifest["id"].to_list()), folder / "tokens.safetensors"
    write_tensors(path, {"v": job.store.tokens(keys), "v_lengths": job.store.lengths(keys)}, {"ids_sha256": digest})
    pooled = job.store.pooled(keys)
    views = patch_views(manifest, table, windows_of(job), Patches(path, digest), pooled, torch.zeros(pooled.shape[1]))
    return {"v": pooled.float().numpy(), **{view: value.flatten(0, -2).float().numpy() for view, value in views.items()}}


def _reads(views: Features, face: NDArray[np.int64], cue: NDArray[np.int64], lent: NDArray[np.int64]) -> dict[str, float]:
    real = np.repeat([0, 1], len(face))
    both = np.concatenate([views["v"], views["v_swap"]])
    return {
        "face in v_s": probe(views["v_s"], face),
        "cue in v_c": probe(views["v_c"], cue),
        "face in v_swap": probe(views["v_swap"], face),
        "donor's cue in v_swap": probe(views["v_swap"], lent),
        "own cue in v_swap": probe(views["v_swap"], cue),
        "told from real": probe(both, real, np.tile(np.arange(len(face)), 2)),
    }


def probe(features: NDArray[np.float32], labels: NDArray[np.int64], groups: NDArray[np.int64] | None = None) -> float:
    """Balanced accuracy of a cross-fitted logistic regression; rows of one group share a fold."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    groups = np.arange(len(labels)) if groups is None else groups
    fold = generator(0, "folds").permutation(int(groups.max()) + 1)[groups] % FOLDS
    said = np.empty_like(labels)
    for held in range(FOLDS):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000, class_weight="balanced"))
        said[fold == held] = model.fit(features[fold != held], labels[fold != held]).predict(features[fold == held])
    return round(float(balanced_accuracy_score(labels, said)), 3)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints both tables as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/planted"), help="folder of the prepared planted set (default: %(default)s)")
    parser.add_argument("--backbone", type=Path, default=Path("models/backbones/planted_clip"), help="folder of its backbone (default: %(default)s)")
    parser.add_argument("--posts", type=int, default=2600, help="train and validation posts, at most (default: %(default)s)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    manifest = pl.read_parquet(arguments.data / "manifest.parquet").filter(pl.col("split").is_in(["train", "valid"])).head(arguments.posts)
    truth = pl.read_parquet(arguments.data / "truth.parquet")
    backbone = (Settings(kind="dual_encoder", model=str(arguments.backbone), batch_size=64), "planted_clip")

    def sources(name: str) -> Sources:
        return Sources(arguments.data / "raw", truth if name == "truth" else None, backbone=backbone)

    print(json.dumps({"editors": editor_table(manifest, truth, sources)}, indent=1), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({"levels": leak_table(manifest, truth, sources("truth"), Path(folder))}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
