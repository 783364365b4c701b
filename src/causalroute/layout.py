"""Where every file of a run lies, relative to the checkout: the one place that knows the names."""

from __future__ import annotations

import os
from pathlib import Path

PLOTS = ("id_vs_ood", "groups", "effects", "gates", "reliability", "temperature", "history", "tests", "controls")
"""Tables under reports/{dataset}/plots, one CSV each."""


def raw(dataset: str) -> Path:
    """Folder with the data set as its source delivers it; image paths of the manifest are relative to it."""
    return Path("data") / dataset / "raw"


def source(dataset: str) -> Path:
    """JSON: every file of `raw` with size and SHA-256, and where it came from."""
    return Path("data") / dataset / "source.json"


def manifest(dataset: str) -> Path:
    """Parquet: one row per usable item; labels of test splits are null."""
    return Path("data") / dataset / "manifest.parquet"


def test_labels(dataset: str) -> Path:
    """Parquet: labels and groups of the test splits; `evaluate` alone reads it."""
    return Path("data") / dataset / "test.parquet"


def truth(dataset: str) -> Path:
    """Parquet: known causal truth (planted and injected data only; no rows elsewhere)."""
    return Path("data") / dataset / "truth.parquet"


def rewrites(dataset: str) -> Path:
    """Parquet: published rewrites of train texts with their flipped label (no rows where there are none)."""
    return Path("data") / dataset / "rewrites.parquet"


def dropped(dataset: str) -> Path:
    """CSV: every item left out and why."""
    return Path("data") / dataset / "dropped.csv"


def dropped_log(dataset: str) -> Path:
    """CSV: the same after a failed `prepare`, whose own outputs the workflow takes away."""
    return Path("logs") / dataset / "dropped.csv"


def summary(dataset: str) -> Path:
    """JSON: classes, counts per split and label, leaks, what the visual side is."""
    return Path("data") / dataset / "summary.json"


def audit_page(dataset: str) -> Path:
    """HTML: the audit for a reader. It quotes posts, so it stays out of git."""
    return Path("data") / dataset / "audit.html"


def errors_page(dataset: str) -> Path:
    """HTML: test posts that a method gets wrong, and those it mends. It shows posts and photos, so it stays out of git."""
    return Path("data") / dataset / "errors.html"


def costs_page(dataset: str) -> Path:
    """HTML: what the run cost on this machine, and its git revision. It differs from machine to machine, so it stays out of git."""
    return Path("data") / dataset / "costs.html"


def backbone(name: str) -> Path:
    """Folder of a backbone trained by the pipeline, in HuggingFace format."""
    return Path("models") / "backbones" / name


def counterfactuals(dataset: str, editor: str) -> Path:
    """Parquet: counterfactual texts, masks and donors per item."""
    return Path("counterfactuals") / dataset / f"{editor}.parquet"


def gate(dataset: str, editor: str) -> Path:
    """JSON: what an editor's counterfactuals measured at the gate, and whether each side passed."""
    return Path("counterfactuals") / dataset / f"{editor}.gate.json"


def gallery(dataset: str) -> Path:
    """HTML: posts beside their counterfactuals. It shows posts and photos, so it stays out of git."""
    return Path("counterfactuals") / dataset / "gallery.html"


def reference_image(dataset: str) -> Path:
    """PNG: the blurred mean train image, the `no treatment` of the visual side."""
    return Path("counterfactuals") / dataset / "reference.png"


def features(dataset: str, backbone_name: str, views: str) -> Path:
    """Safetensors: features of the factual pair (`views` = factual) or of one editor's views."""
    return Path("features") / dataset / backbone_name / f"{views}.safetensors"


def tokens(dataset: str, backbone_name: str, views: str) -> Path:
    """Safetensors: the same of every token and patch, for methods that route them."""
    return Path("features") / dataset / backbone_name / "tokens" / f"{views}.safetensors"


def feature_store() -> Path:
    """Content-addressed feature shards, shared by checkouts and experiments of one user."""
    return _cache() / "features"


def download_cache() -> Path:
    """Downloaded files, and the parts of interrupted downloads."""
    return _cache() / "downloads"


def reply_cache() -> Path:
    """Replies of language models, by content."""
    return _cache() / "replies"


def _cache() -> Path:
    return Path(os.environ.get("CAUSALROUTE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "causalroute")


def run(dataset: str, method: str, first: int, last: int) -> Path:
    """Folder of one training job: weights, history, selection, predictions."""
    return Path("models") / dataset / method / f"seeds{first}-{last}"


def events(dataset: str, method: str, first: int, last: int) -> Path:
    """Folder of TensorBoard events of one training job."""
    return Path("runs") / dataset / method / f"seeds{first}-{last}"


def search(dataset: str, method: str) -> Path:
    """JSON: the candidate settings of a method, how they did on validation posts, and the one chosen."""
    return Path("models") / dataset / method / "search.json"


def search_events(dataset: str, method: str) -> Path:
    """Folder of TensorBoard events of the candidates."""
    return Path("runs") / dataset / method / "search"


def reports(dataset: str) -> Path:
    """Folder of the small files that go into git."""
    return Path("reports") / dataset


def ablation(dataset: str) -> Path:
    """Folder of the comparison of variants with their methods, likewise in git."""
    return reports(dataset) / "ablation"
