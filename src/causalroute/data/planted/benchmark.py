"""The planted benchmark: posts whose causal truth is known.

Text polarity a and image polarity b, both in {+1, -1}, are the core. Sarcasm: y = [a != b]; sentiment: y = sign(a + b) + 1. A share
`label_noise` of the labels of train and valid is replaced by another class. Hashtag set and background family are the cues: each
equals the *recorded* label with probability r and is another class, uniformly, otherwise. r = rho in train, valid and id, 1 - rho
in ood, 1/C in neutral and in the oracle splits. With several sources the cues play other parts (`sources`).

The planted direct effect of a cue c on the recorded label y is the change it makes to the log-odds of y,

    effect(y, c) = logit P(y | c) - logit P(y),    P(y | c) = r if y = c, else (1 - r) / (C - 1),    P(y) = 1 / C,

positive where the cue speaks for the recorded label. With two classes that is logit(r) for y = c and -logit(r) for y != c.

Letters: C classes, r agreement of a cue with the recorded label, a and b polarities, y label, c cue value.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from causalroute.config import Planted
from causalroute.data.planted import grammar, render, sources
from causalroute.errors import UserError
from causalroute.io import write_parquet
from causalroute.rng import generator

CLASSES: dict[str, tuple[str, ...]] = {"sarcasm": ("literal", "sarcastic"), "sentiment": ("negative", "neutral", "positive")}
"""Label names by task, in the order of their numbers."""
SPLITS = ("train", "valid", "id", "ood", "neutral", "oracle_train", "oracle_valid")
"""In the order of the rows."""
NOISY_SPLITS = ("train", "valid", "oracle_train", "oracle_valid")
"""Splits with label noise."""

SPAN = pl.Struct({"start": pl.Int32, "end": pl.Int32})
SCHEMA: dict[str, Any] = {
    "id": pl.String, "split": pl.String, "text": pl.String, "image": pl.String, "label": pl.String,
    "core_text": pl.Int8, "core_image": pl.Int8, "cue_text": pl.Int8, "cue_image": pl.Int8,
    "core_spans": pl.List(SPAN), "cue_spans": pl.List(SPAN), "core_box": pl.List(pl.Float32), "image_size": pl.Int32,
    "noisy": pl.Boolean, "effect_text": pl.Float32, "effect_image": pl.Float32,
}  # fmt: skip
"""Columns of posts.parquet; `cue_*` is the class that the cue stands for."""
SOURCE = "group:source"
"""One column more where there are several sources."""


def sizes(settings: Planted) -> dict[str, int]:
    """Posts per split."""
    test = settings.test
    return dict(zip(SPLITS, (settings.train, settings.valid, test, test, test, settings.train, settings.valid), strict=True))


def direct_effect(agrees: bool, r: float, classes: int) -> float:
    """The planted direct effect of a cue on the recorded label, in log-odds (module docstring)."""
    p = r if agrees else (1.0 - r) / (classes - 1)
    return math.log(p / (1.0 - p)) + math.log(classes - 1)


def true_label(task: str, a: int, b: int) -> int:
    """The label that the polarities determine."""
    return int(a != b) if task == "sarcasm" else (a + b) // 2 + 1


def polarities(rng: np.random.Generator, task: str) -> tuple[int, int]:
    """Polarities (a, b) such that all classes, and both values of a and of b, are equally likely."""
    label = int(rng.integers(len(CLASSES[task])))
    a = 1 if rng.random() < 0.5 else -1
    if task == "sarcasm":
        return a, -a if label else a
    return (label - 1, label - 1) if label != 1 else (a, -a)


def another(rng: np.random.Generator, value: int, classes: int) -> int:
    """A class other than `value`, uniformly."""
    return (value + 1 + int(rng.integers(classes - 1))) % classes


def draw(settings: Planted, task: str, split: str, index: int) -> tuple[dict[str, Any], render.Scene]:
    """One post: its row of posts.parquet, and its image as a scene. Depends on nothing but the arguments."""
    rng = generator(settings.seed, "planted", task, split, index)
    number = index % max(1, len(settings.sources))
    kind = settings.sources[number] if settings.sources else "both"
    row = _meaning(rng, settings, task, split, kind)
    post = grammar.post(rng, row["core_text"], row["cue_text"])
    scene = render.draw_scene(rng, row["core_image"], row["cue_image"], render.POSTS)
    if settings.sources:
        style = sources.style(rng, settings, number)
        post, scene = grammar.signed(rng, post, sources.HANDLES[style], sources.HANDLE_FIRST), replace(scene, frame=style)
        row[SOURCE] = f"{number} {kind}" if len(set(settings.sources)) < len(settings.sources) else kind
    name = f"{split}-{index:05d}"
    row |= {"id": name, "split": split, "text": post.text, "core_spans": _spans(post.core), "cue_spans": _spans(post.cue)}
    row |= {"image": f"images/{split}/{name}.png", "core_box": list(scene.box), "image_size": render.SIZE}
    return row, scene


def _meaning(rng: np.random.Generator, settings: Planted, task: str, split: str, kind: str) -> dict[str, Any]:
    """Label, polarities, cues and planted effects of a post in a source of the kind."""
    classes = len(CLASSES[task])
    a, b = polarities(rng, task)
    label = true_label(task, a, b)
    noisy = split in NOISY_SPLITS and bool(rng.random() < settings.label_noise)
    if noisy:
        label = another(rng, label, classes)
    row: dict[str, Any] = {"label": CLASSES[task][label], "noisy": noisy}
    cues = dict(zip(("text", "image"), sources.cues(settings, kind, split, classes), strict=True))
    for (side, cue), polarity in zip(cues.items(), (a, b), strict=True):
        agrees = bool(rng.random() < cue.agreement)
        value = label if agrees else another(rng, label, classes)
        row |= {f"core_{side}": polarity * sources.turned(cue, value), f"cue_{side}": value, f"effect_{side}": direct_effect(agrees, cue.agreement, classes)}
    return row


def _spans(spans: list[grammar.Span]) -> list[dict[str, int]]:
    return [{"start": start, "end": end} for start, end in spans]


def posts(settings: Planted, task: str) -> Iterator[tuple[dict[str, Any], render.Scene]]:
    """Every post, in row order."""
    for split, count in sizes(settings).items():
        for index in range(count):
            yield draw(settings, task, split, index)


def png(scene: render.Scene) -> bytes:
    """The scene as a lightly compressed PNG."""
    buffer = io.BytesIO()
    render.render(scene).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def generate(settings: Planted, task: str, out: Path) -> None:
    """Writes `out/posts.parquet` (SCHEMA) and `out/images/{split}/{id}.png`; the same settings give the same bytes.

    The table is written last and atomically: where it exists, every image does.

    Raises:
        UserError: unknown task, or numbers that no data set can have.
    """
    _check(settings, task)
    out = Path(out)
    (out / "posts.parquet").unlink(missing_ok=True)
    for split in SPLITS:
        (out / "images" / split).mkdir(parents=True, exist_ok=True)
    rows = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        for start in _chunks(posts(settings, task), 256):
            rows += [row for row, _ in start]
            for (row, _), data in zip(start, pool.map(png, [scene for _, scene in start]), strict=True):
                (out / row["image"]).write_bytes(data)
    write_parquet(out / "posts.parquet", pl.DataFrame(rows, schema=SCHEMA | ({SOURCE: pl.String} if settings.sources else {})))


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _check(settings: Planted, task: str) -> None:
    if task not in CLASSES:
        raise UserError(f"the planted benchmark has no task {task!r}", where="params.yaml: datasets.*.task", fix=f"choose from {sorted(CLASSES)}")
    for key in ("rho_text", "rho_image"):
        if not 0.0 < getattr(settings, key) < 1.0:
            raise UserError(f"{key} is {getattr(settings, key)}", where="params.yaml: datasets.*.planted", fix="give a probability strictly between 0 and 1")
    if not 0.0 <= settings.label_noise < 0.5:
        raise UserError(f"label_noise is {settings.label_noise}", where="params.yaml: datasets.*.planted", fix="give a share from 0 up to .5")
    if settings.sources and (len(CLASSES[task]) != 2 or len(settings.sources) > len(sources.HANDLES)):
        raise UserError(
            f"{len(settings.sources)} sources of task {task!r}",
            where="params.yaml: datasets.*.planted.sources",
            fix=f"a cue can only turn a polarity round with two classes (sarcasm), and there are {len(sources.HANDLES)} styles",
        )
    if not 0.0 < settings.core_bias < 1.0:
        raise UserError(f"core_bias is {settings.core_bias}", where="params.yaml: datasets.*.planted", fix="give a probability strictly between 0 and 1")
    if min(sizes(settings).values()) < 1:
        raise UserError("a split of the planted benchmark is empty", where="params.yaml: datasets.*.planted", fix="set train, valid and test to 1 or more")
