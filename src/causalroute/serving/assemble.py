"""A saved model from a finished run: weights, scales, temperatures, the fitted editor and the backbone, put into one folder (`bundle`).

Temperatures are fitted on validation posts, as for the report; of the test, only the figures of the report travel along.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute import __version__, io, layout, methods, plan, schema
from causalroute.config import Backbone, Config, parse
from causalroute.counterfactual.fitted import Fitted, fit
from causalroute.counterfactual.views import visual_side
from causalroute.errors import UserError
from causalroute.evaluation.calibration import fit_temperatures
from causalroute.features.folders import COMMIT, MORE, PACKAGE, WANTED, library_versions
from causalroute.methods.base import Method
from causalroute.report.card import card
from causalroute.serving.bundle import BACKBONE, CARD, CONFIG, EDITOR, FIELDS, FORMAT, LOOKER, REFERENCE, replaced

SPLITS = ("id", "ood", "neutral", "clean")
TOLD = ("accuracy", "f1_macro", "f1_weighted", "worst_group", "ece_calibrated")
"""Metrics of the test splits that travel along."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run of one data set."""

    root: Path
    """folder with params.yaml"""
    name: str
    """of the data set"""
    config: Config

    def path(self, relative: Path) -> Path:
        """A file of the run.

        Raises:
            UserError: it is not there.
        """
        path = self.root / relative
        if not path.exists():
            raise UserError("a file of the run is missing", where=str(path), fix="let the run finish (`snakemake --cores all`, or `causalroute train` again)")
        return path


def assemble(project: Path, dataset: str, method: str, out: Path, reference: str = "erm") -> None:
    """Writes the saved model of one method.

    Args:
        project: folder with params.yaml and the finished run.
        dataset: key of `datasets`.
        method: a method or variant that the run trained.
        out: the folder to write; a saved model that is there is replaced, anything else is not touched.
        reference: the biased method that is shown beside it; left out where the run has none, or it is the method itself.

    Raises:
        UserError: the run is not finished, the method cannot be saved, or `out` holds something else.
    """
    run = _run(Path(project), dataset)
    chosen = run.config.datasets[dataset]
    beside = reference if reference in chosen.methods and reference != method else ""
    for one in filter(None, (method, beside)):
        require_saveable(run.config, dataset, one)
    names = [method, *filter(None, [beside])]
    with replaced(out) as folder:
        told = _write(run, names, folder)
        io.write_json(folder / CONFIG, told)
        io.write_text(folder / CARD, card(told | _named(run, chosen.backbone, bool(told[LOOKER])), _metrics(run)))


def read_params(root: Path) -> Config:
    """params.yaml of the run in `root`.

    Raises:
        UserError: there is none, or it is wrong.
    """
    path = root / "params.yaml"
    if not path.is_file():
        raise UserError("there is no params.yaml", where=str(root), fix="name the folder of a run")
    return parse(Config, io.canonical_json(schema.read(path)), where=str(path))


def _run(root: Path, dataset: str) -> Run:
    config = read_params(root)
    if dataset not in config.datasets:
        raise UserError(f"params.yaml has no data set {dataset!r}", where=str(root / "params.yaml"), fix=f"choose from {', '.join(config.datasets)}")
    return Run(root, dataset, config)


def require_saveable(config: Config, dataset: str, method: str) -> None:
    """Refuses a method that is not among those of the data set, or whose answers to further posts cannot be had.

    Raises:
        UserError: it is such a one.
    """
    chosen, where = config.datasets[dataset], f"params.yaml: datasets.{dataset}.methods"
    if method not in (*chosen.methods, *chosen.ablation):
        raise UserError(f"the run has no method {method!r}", where=where, fix=f"choose from {', '.join(chosen.methods)}")
    if methods.reads(method) == "tokens":
        fix = "save causal_moe, the same mixture on features of whole sides; the `evaluate` stage of the workflow tests this one"
        raise UserError(f"{method!r} reads features of single tokens, which a saved model does not make, and cannot be saved", where=where, fix=fix)
    if methods.reads(method) == "posts" or methods.load(method).Method.asks:
        fix = "save a method on its features, such as erm or causal_moe; the `evaluate` stage of the workflow tests this one"
        raise UserError(f"{method!r} works inside a multimodal LLM and cannot be saved", where=where, fix=fix)
    if methods.reads(method) == "rewrites":
        raise UserError(f"{method!r} is a cheat that knows the rewriter of a test, and is not saved", where=where, fix="save another method")
    if methods.load(method).Method.split_roles != Method.split_roles or methods.settings_of(method, config.methods[method]).__dict__.get("router") == "oracle":
        raise UserError(f"{method!r} is an oracle: it knows what no further post tells", fix="save another method")


def _write(run: Run, names: Sequence[str], folder: Path) -> dict[str, Any]:
    """Writes all files but config.json, which is returned."""
    chosen = run.config.datasets[run.name]
    manifest = pl.read_parquet(run.path(layout.manifest(run.name)))
    seeds = {name: _merge(run, name, folder / f"{name}.safetensors") for name in names}
    visual = visual_side(manifest)
    if visual == "image":
        shutil.copyfile(run.path(layout.reference_image(run.name)), folder / REFERENCE)
    fitted, editor = _editor(run, names[0], manifest)
    told, tensors = (None, {}) if fitted is None else fitted.saved()
    if tensors:
        io.write_tensors(folder / EDITOR, {name: value.contiguous() for name, value in tensors.items()}, {})
    return {
        "causalroute": FORMAT,
        "task": chosen.task,
        "classes": list(chosen.classes),
        "positive": chosen.positive,
        "dataset": run.name,
        "method": names[0],
        "reference": names[1] if len(names) > 1 else "",
        "visual": visual,
        "seeds": seeds[names[0]],
        "temperatures": {name: _temperatures(run, name) for name in names},
        BACKBONE: _backbone(run, chosen.backbone, folder, BACKBONE),
        LOOKER: _looker(run, fitted, folder),
        "editor": told,
        "edited_by": editor,
        "results": _results(run, names),
        "made_by": {"version": __version__, **plan.made_by(run.config, run.name), "data": io.sha256_file(run.path(layout.manifest(run.name)))[:16]},
    }


def _jobs(run: Run, method: str) -> list[Path]:
    """Folders of the training jobs of a method: those of the result table, or of the ablation where it is there alone."""
    listed = method in run.config.datasets[run.name].methods
    spans = plan.chunks(run.config.replicates if listed else plan.ablation_replicates(run.config))
    return [run.path(layout.run(run.name, method, *map(int, span.split("-")))) for span in spans]


def _merge(run: Run, method: str, path: Path) -> list[int]:
    """One weights file of all training jobs; returns their seeds."""
    import json

    tensors: dict[str, Any] = {}
    seeds: list[int] = []
    extra: dict[str, Any] = {}
    for job in _jobs(run, method):
        found, metadata = io.read_tensors(run.path((job / "weights.safetensors").relative_to(run.root)))
        tensors |= found
        seeds += json.loads(metadata["seeds"])
        extra |= json.loads(metadata["extra"])
    io.write_tensors(path, tensors, metadata | {"seeds": json.dumps(seeds), "extra": io.canonical_json(extra)})
    return seeds


def _temperatures(run: Run, method: str) -> list[float]:
    """Of every seed, on validation posts."""
    found: list[float] = []
    for job in _jobs(run, method):
        path = run.path((job / "predictions.parquet").relative_to(run.root))
        rows = pl.read_parquet(path, columns=["seed", "split", "view", "label", "p"]).filter((pl.col("split") == "valid") & (pl.col("view") == "factual"))
        seeds = rows.partition_by("seed", maintain_order=True)
        p = np.stack([np.array(one["p"].to_list(), dtype=np.float64) for one in seeds])
        found += fit_temperatures(p, seeds[0]["label"].to_numpy().astype(np.int64)).tolist()
    return found


def _editor(run: Run, method: str, manifest: pl.DataFrame) -> tuple[Fitted | None, str]:
    """The fitted editor and its name; none where a method that needs no contexts was trained with one that cannot be kept."""
    chosen = run.config.datasets[run.name]
    name = methods.editor_of(method, chosen.editor) or chosen.editor
    try:
        counterfactuals = pl.read_parquet(run.path(layout.counterfactuals(run.name, name)))
        return fit(manifest, counterfactuals, run.config.editors[name], _features(run, plan.looker(run.config, run.name), manifest)), name
    except UserError:
        if methods.load(method).Method.contexts:
            raise
        return None, ""


def _features(run: Run, backbone: str, manifest: pl.DataFrame) -> Callable[[Sequence[str]], tuple[NDArray[np.float32], NDArray[np.float32]]] | None:
    """Factual features by id, for an encoder pair."""
    if run.config.backbones[backbone].kind == "dual_encoder":
        return None

    def features(ids: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        position = {name: row for row, name in enumerate(manifest["id"])}
        rows = [position[name] for name in ids]
        tensors, _ = io.read_tensors(run.path(layout.features(run.name, backbone, "factual")))
        return tensors["t"][rows].float().numpy(), tensors["v"][rows].float().numpy()

    return features


def _looker(run: Run, fitted: Fitted | None, folder: Path) -> dict[str, Any] | None:
    """As `_backbone`, of the encoder that finds the cores of images, where that is another one."""
    name = plan.looker(run.config, run.name)
    looks = fitted is not None and fitted.image is not None and fitted.image.mask is None
    return _backbone(run, name, folder, LOOKER) if looks and name != run.config.datasets[run.name].backbone else None


def _backbone(run: Run, name: str, folder: Path, role: str) -> dict[str, Any]:
    """Settings of the backbone, its local folders copied; and what its features were made with."""
    settings: Backbone = run.config.backbones[name]
    values = asdict(settings) | {"pretrain": None}
    if settings.pretrain is not None:
        values["model"] = str(layout.backbone(name))
    for key in FIELDS:
        source = run.root / values[key]
        if values[key] and not values[key].startswith(PACKAGE) and source.is_dir():
            _copy_model(source, folder / role / key, MORE if settings.kind == "mllm" else ())
            values[key] = f"{role}/{key}"
    path = run.path(layout.features(run.name, name, "factual"))
    _, metadata = io.read_tensors(path)
    if settings.mllm is not None:
        if "model_key" not in metadata:
            raise UserError("the features were made by an earlier version, which did not say of what model", where=str(path), fix="let the run be made again")
        if settings.mllm.device != "spread":
            values["mllm"]["device"] = "auto"  # the saved model may go to a machine with other devices
    return {"name": name, "settings": values, "key": metadata.get("model_key", metadata["backbone_key"]), "versions": library_versions()}


def _copy_model(source: Path, target: Path, more: Sequence[str]) -> None:
    target.mkdir(parents=True)
    for file in sorted({file for pattern in (*WANTED, *more) for file in source.glob(pattern) if file.is_file()}):
        shutil.copyfile(file, target / file.name)


def _results(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """Figures of the test splits, by method, split and metric; empty before there is a report."""
    metrics = _metrics(run)
    splits = {name: {split: metrics[name][split] for split in SPLITS if split in metrics[name]} for name in names if name in metrics}
    return {name: {split: {key: values[key] for key in TOLD if key in values} for split, values in found.items()} for name, found in splits.items()}


def _metrics(run: Run) -> dict[str, Any]:
    """metrics.json of the report; empty before there is one."""
    path = run.root / layout.reports(run.name) / "metrics.json"
    found: dict[str, Any] = io.read_json(path) if path.is_file() else {}
    return found


def _named(run: Run, name: str, looks: bool) -> dict[str, str]:
    """What the model card calls the backbone and, where it `looks` elsewhere, the looker; a hub id is the base model."""
    told, hub = _title(run, name)
    found = {"backbone": told} | ({"base_model": hub} if hub else {})
    return found | ({LOOKER: _title(run, plan.looker(run.config, run.name))[0]} if looks else {})


def _title(run: Run, name: str) -> tuple[str, str]:
    """A backbone's hub id with its commit, and the hub id alone; or its name, and nothing."""
    settings = run.config.backbones[name]
    if COMMIT.fullmatch(settings.revision) and (hub := settings.model or settings.image_model):
        return f"{hub} at {settings.revision}", hub
    return name, ""
