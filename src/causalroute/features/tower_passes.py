"""Passes of encoders of texts and of images over inputs that the store does not hold yet.

A row's features depend on that row alone, to the last bit: every forward pass has the same shape (a short batch is filled with copies of its first
row), a text is padded to a length of its own, and each pass runs on one thread. So the same bytes come out whatever was stored before, in
whatever order, on however many threads. Threads work on whole batches; images are decoded while earlier batches are in the forward pass, and a
bounded number of batches is under way at any time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from causalroute.errors import UserError
from causalroute.features.backbone import Backbone
from causalroute.features.encoding import Encoding
from causalroute.features.inputs import ImageLike
from causalroute.features.progress import Progress
from causalroute.features.store import Store
from causalroute.features.threads import one_thread, ordered_map
from causalroute.features.tokens import Encoded

A = TypeVar("A")
SHARD = 512
"""Inputs per shard: what a killed run loses at most."""
SHARD_TOKENS = 64
"""The same where token features are stored, which are some fifty times larger."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Inputs of one forward pass: at most `batch_size` texts of one bucket, or `image_batch` images."""

    digests: tuple[bytes, ...]
    texts: tuple[Encoded, ...] = ()
    images: tuple[ImageLike, ...] = ()


def run(job: Encoding, todo: dict[bytes, Any]) -> None:
    """Encodes texts and images (pairs are for models that read chats) and stores them shard by shard.

    Raises:
        UserError: an image is missing or broken, the backbone has no image tower, or a feature overflows half precision.
    """
    batches = _text_batches(job.backbone, todo) + _image_batches(job.backbone, todo)
    progress = Progress(len(todo), "features")
    limit = SHARD_TOKENS if job.tokens else SHARD
    pending: list[tuple[Batch, dict[str, torch.Tensor]]] = []
    for batch, tensors in _results(job, batches):
        pending.append((batch, tensors))
        progress.update(len(batch.digests))
        if sum(len(done.digests) for done, _ in pending) >= limit:
            _write(job.store, pending)
            pending = []
    if pending:
        _write(job.store, pending)
    progress.close()


def _text_batches(backbone: Backbone, todo: dict[bytes, Any]) -> list[Batch]:
    """Batches of one bucket each, longest first so that the need of memory shows at once."""
    keys = [digest for digest, item in todo.items() if hasattr(item, "text")]
    encoded = backbone.tokenize_many([todo[digest].text for digest in keys])
    buckets: dict[int, list[tuple[bytes, Encoded]]] = {}
    for digest, text in sorted(zip(keys, encoded, strict=True), key=lambda pair: -len(pair[1].ids)):
        buckets.setdefault(text.bucket, []).append((digest, text))
    chunks = [chunk for _, rows in sorted(buckets.items(), reverse=True) for chunk in _chunks(rows, backbone.batch_size)]
    return [Batch(tuple(digest for digest, _ in chunk), texts=tuple(text for _, text in chunk)) for chunk in chunks]


def _image_batches(backbone: Backbone, todo: dict[bytes, Any]) -> list[Batch]:
    images = sorted(((digest, item) for digest, item in todo.items() if not hasattr(item, "text")), key=lambda pair: pair[1].neighbour())
    if images and not backbone.has_images:
        raise UserError("the data has images, but the backbone has no image model", where="params.yaml: backbones", fix="give it an image_model")
    chunks = _chunks(images, max(backbone.image_batch, 1))
    return [Batch(tuple(digest for digest, _ in chunk), images=tuple(image for _, image in chunk)) for chunk in chunks]


def _chunks(rows: Sequence[A], size: int) -> list[Sequence[A]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _results(job: Encoding, batches: Sequence[Batch]) -> Iterator[tuple[Batch, dict[str, torch.Tensor]]]:
    """Loads and encodes batches in two pools; at most 2 * threads + 2 batches wait before or behind each."""
    window = job.threads + 1
    with ThreadPoolExecutor(job.threads, initializer=one_thread) as loaders, ThreadPoolExecutor(job.threads, initializer=one_thread) as workers:
        loaded = ordered_map(loaders, lambda batch: (batch, _load(job, batch)), batches, window)
        yield from ordered_map(workers, lambda pair: (pair[0], _forward(job, *pair)), loaded, window)


def _load(job: Encoding, batch: Batch) -> tuple[torch.Tensor, ...]:
    """Ids and mask (B, T), or pixels (B, 3, H, W); B is `batch_size` or `image_batch`, however many rows are real."""
    if batch.texts:
        return job.backbone.collate([*batch.texts, *[batch.texts[0]] * (job.backbone.batch_size - len(batch.texts))])
    pixels = [job.backbone.preprocess(image.load(job.root)) for image in batch.images]
    return (torch.stack([*pixels, *[pixels[0]] * (job.backbone.image_batch - len(pixels))]),)


def _forward(job: Encoding, batch: Batch, ready: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    """Pooled (n, D) float16 of the n real rows; with `tokens` also their tokens (n, L, D) and lengths (n,)."""
    count = len(batch.digests)
    with torch.inference_mode():
        pooled, tokens = job.backbone.text_features(*ready) if batch.texts else job.backbone.image_features(*ready)
        result = {"pooled": pooled[:count].half()}
        if job.tokens:
            lengths = [len(text.ids) for text in batch.texts] or [tokens.shape[1]] * count
            result["lengths"] = torch.tensor(lengths, dtype=torch.int32)
            inside = torch.arange(tokens.shape[1])[None, :] < result["lengths"][:, None]  # (n, L)
            result["tokens"] = tokens[:count].half() * inside.unsqueeze(-1)
    if not all(bool(torch.isfinite(value).all()) for value in result.values()):
        raise UserError("features are not finite in half precision", where="params.yaml: backbones", fix="choose another backbone: this one overflows 65504")
    return result


def _write(store: Store, pending: Sequence[tuple[Batch, dict[str, torch.Tensor]]]) -> None:
    """One shard per width of the pooled features (texts and images may differ), token features padded to the longest."""
    for width in sorted({tensors["pooled"].shape[1] for _, tensors in pending}):
        group = [(batch, tensors) for batch, tensors in pending if tensors["pooled"].shape[1] == width]
        shard: dict[str, torch.Tensor] = {name: torch.cat([tensors[name] for _, tensors in group]) for name in group[0][1] if name != "tokens"}
        if "tokens" in group[0][1]:
            longest = max(tensors["tokens"].shape[1] for _, tensors in group)
            shard["tokens"] = torch.cat([_padded(tensors["tokens"], longest) for _, tensors in group])
        store.add([digest for batch, _ in group for digest in batch.digests], shard)


def _padded(tokens: torch.Tensor, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(tokens, (0, 0, 0, length - tokens.shape[1]))
