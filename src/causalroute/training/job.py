"""One training job: all seeds of one method, one weights file.

weights.safetensors    seed{n}/<name> of the chosen epoch, standard/<name>; metadata says how to rebuild the method
history.csv            one row per seed and epoch
selection.json         per seed: the chosen epoch and its validation accuracy
runs/.../              TensorBoard events; cost.json (clock and memory: the one file that differs between runs)
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from causalroute import io, methods
from causalroute.config import Train
from causalroute.methods.base import Method, Posts, Shape
from causalroute.provenance import code_hash
from causalroute.rng import torch_generator
from causalroute.training import loop
from causalroute.training.checkpoint import Folder
from causalroute.training.data import Standard
from causalroute.training.events import Events
from causalroute.variants import module_of, stream_of


@dataclass(frozen=True)
class Job:
    """What decides the result, and where it goes."""

    method: str
    settings: Mapping[str, Any]
    train: Train
    seeds: range
    out: Path
    events: Path
    key: str
    """digest of settings, data and code: a checkpoint with another key is not taken up"""


@dataclass
class Seed:
    """A finished seed."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    """history, selection, extra"""


def build(name: str, settings: Mapping[str, Any], shape: Shape, seed: int, reader: Any = None) -> Method:
    """An untrained method; its first weights depend on the seed and the module alone, so that a variant starts as its method does."""
    module, generator = methods.load(name), torch_generator(seed, "weights", stream_of(name))
    method: Method = module.Method(methods.settings_of(name, dict(settings)), shape, generator)
    if reader is not None:
        method.attach(reader, generator)
    return method


def shape_of(posts: Posts, train: Train) -> Shape:
    """The sizes of a method that learns from `posts`."""
    text, image, joint = (posts.views[name].shape[1] if name in posts.views else 0 for name in ("t", "v", "k"))
    return Shape(text, image, posts.classes, train.hidden, train.dropout, joint)


def digest(files: Sequence[Path], method: str, **settings: Any) -> str:
    """A job's key: digest of everything a checkpoint depends on, inputs, settings and the package's own code."""
    code = code_hash("causalroute.training.job", f"causalroute.methods.{module_of(method)}")
    parts = [io.canonical_json({"method": method, **settings}), code, *(io.sha256_file(path) for path in files)]
    return io.sha256_bytes(*(part.encode() for part in parts))


def run(job: Job, posts: Posts, standard: Standard) -> None:
    """Trains what is not finished yet and writes the job's files."""
    began = time.monotonic()
    shape = shape_of(posts, job.train)
    folder = Folder(job.out / ".resume", job.key)
    finished = finish(job, posts, shape, folder)
    _write(job, shape, standard, finished)
    _cost(job, posts, shape, time.monotonic() - began)
    folder.remove()


def finish(job: Job, posts: Posts, shape: Shape, folder: Folder) -> dict[int, Seed]:
    """Every seed of the job, kept in `folder` as it is done; what an earlier process left there is not trained again."""
    finished: dict[int, Seed] = {}
    for seed in job.seeds:
        kept = folder.load_seed(seed)
        if kept is None:
            kept = _train(job, posts, shape, seed, folder, finished)
            folder.save_seed(seed, *kept)
        finished[seed] = Seed(*kept)
    return finished


def _train(job: Job, posts: Posts, shape: Shape, seed: int, folder: Folder, finished: Mapping[int, Seed]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    method = build(job.method, job.settings, shape, seed, posts.reader)
    if not method.gradient:
        return _fit(job, method, posts, seed, finished)
    state = loop.start(method, posts, job.method, seed, job.train)
    resumed = folder.load_state(seed, state)
    with Events(job.events / f"seed{seed}", resume_at=state.epoch if resumed else None) as events:
        best = loop.advance(state, posts, job.train, seed, save=lambda s: folder.save_state(seed, s), watch=events.write)
    selection = {"epoch": best.epoch, "valid_accuracy": best.accuracy, "valid_loss": best.loss}
    return best.tensors, {"history": state.history, "selection": selection, "extra": method.extra()}


def _fit(job: Job, method: Method, posts: Posts, seed: int, finished: Mapping[int, Seed]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A method without seed is fitted once and serves all seeds."""
    if finished:
        first = next(iter(finished.values()))
        return {name: value.clone() for name, value in first.tensors.items()}, {
            **first.meta,
            "history": [{**row, "seed": seed} for row in first.meta["history"]],
        }
    method.prepare(posts, torch_generator(seed, "prepare", stream_of(job.method)))
    valid = posts.valid
    answer = method.answer(posts.inputs(valid))
    correct = answer.p.argmax(1) == posts.labels[valid]
    correct = correct if answer.unparsed is None else correct & ~answer.unparsed
    accuracy = correct.float().mean().item()
    history = [{"epoch": 0, "seed": seed, "valid/factual": accuracy, "valid/selection": accuracy}]
    meta = {"history": history, "selection": {"epoch": 0, "valid_accuracy": accuracy, "valid_loss": None}, "extra": method.extra()}
    return dict(method.state_dict()), meta


def _write(job: Job, shape: Shape, standard: Standard, finished: Mapping[int, Seed]) -> None:
    tensors = {f"standard/{name}": value for name, value in standard.tensors().items()}
    for seed, result in finished.items():
        tensors |= {f"seed{seed}/{name}": value for name, value in result.tensors.items()}
    metadata = {
        "method": job.method,
        "settings": io.canonical_json(dict(job.settings)),
        "shape": io.canonical_json(shape.saved()),
        "seeds": json.dumps(list(job.seeds)),
        "extra": io.canonical_json({str(seed): result.meta["extra"] for seed, result in finished.items()}),
    }
    io.write_tensors(job.out / "weights.safetensors", tensors, metadata)
    io.write_csv(job.out / "history.csv", pl.DataFrame([row for result in finished.values() for row in result.meta["history"]], infer_schema_length=None))
    io.write_json(job.out / "selection.json", {f"seed{seed}": result.meta["selection"] for seed, result in finished.items()})


def _cost(job: Job, posts: Posts, shape: Shape, seconds: float) -> None:
    method = build(job.method, job.settings, shape, job.seeds[0], posts.reader)
    seen = len(posts.train) * len(job.seeds) * (job.train.epochs if method.gradient else 1)
    cost = {
        "parameters": sum(p.numel() for p in method.parameters()),
        "seconds": round(seconds, 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "samples_per_second": round(seen / max(seconds, 1e-9), 1),
        "seeds": len(job.seeds),
    }
    io.write_json(job.events / "cost.json", cost)
