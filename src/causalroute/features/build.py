"""Feature files of a data set: the factual pair of every post, or the views of one editor.

`factual.safetensors` holds t (N, Dt) and v (N, Dv) in manifest order.
`<editor>.safetensors` holds rows (M,) int64 (index into the manifest), t_s, t_c, v_s, v_c (M, D), t_0, v_0 (1, D) and t_swap, v_swap (M, K, D).
A multimodal LLM adds joint features of pairs (`causalroute.pairs`): k (N, D) of the posts, k_s, k_c, k_swap_* of the views; and, where it scores answers,
log-likelihoods (V prompts, C classes) of each: of a pair k... under the name z..., of a single view x as z_x, and z_0 of no post at all. Where it writes
replies, the class that each names is `replies` (N,) int8, with the gaps of `mllm.replies`.
The metadata name the classes in their order (`answers`), the posts that were shown first (`shots`), and by split how many replies were `unparsed`.
The image views of an editor of level `patches` are pooled anew from the factual patch features (`pooled.py`); all others are encoded.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch

from causalroute import layout
from causalroute.counterfactual.paired import pair_inputs
from causalroute.counterfactual.views import EDITED, FACTUAL, TextInput, edited_rows, view_inputs, visual_side
from causalroute.data.images import image_size
from causalroute.errors import UserError
from causalroute.features.encode import encode
from causalroute.features.encoding import Encoding
from causalroute.features.examples import examples
from causalroute.features.inputs import Input
from causalroute.features.pooled import Patches, patch_views
from causalroute.features.window import Window, crop_window
from causalroute.io import canonical_json, ids_digest, read_tensors, write_tensors
from causalroute.mllm.replies import UNASKED, UNPARSED
from causalroute.pairs import EDITED_PAIRS, FACTUAL_PAIRS, NOTHING, score_name

POOLED = ("v_s", "v_c", "v_swap")
"""Views that level `patches` makes without encoding an image."""
CONTENT_FREE = "N/A"
"""The text that says nothing, by which zero-shot answers are calibrated (Zhao et al., 2021)."""
RAMP = 256
"""Longer side in pixels of the ramp that shows what the preprocessing crops away."""


def write_factual(dataset: str, backbone_name: str, job: Encoding) -> Path:
    """Encodes every post of the manifest; returns the file."""
    manifest, reference = _read(layout.manifest(dataset)), layout.reference_image(dataset)
    inputs: dict[str, Sequence[Input]] = {view: view_inputs(manifest, None, view, reference) for view in FACTUAL}
    if _joint(job):
        inputs |= {name: pair_inputs(manifest, None, name, reference) for name in FACTUAL_PAIRS} | {NOTHING: [TextInput(CONTENT_FREE)]}
    if _replies(job):
        pairs = pair_inputs(manifest, None, "k", reference)
        inputs["k"] = [dataclasses.replace(pair, replied=replied) for pair, replied in zip(pairs, _judged(manifest), strict=True)]
    digests = _encode_all(job, inputs)
    tensors = {name: job.store.pooled(keys) for name, keys in digests.items() if name != NOTHING} | _scores(job, digests)
    metadata = _metadata(job, manifest, tensors["t"], tensors["v"])
    if _replies(job):
        tensors["replies"] = job.store.values(digests["k"], "replies")
        metadata["unparsed"] = canonical_json(_unparsed(manifest, tensors["replies"]))
    path = layout.features(dataset, backbone_name, "factual")
    write_tensors(path, tensors, metadata)
    return path


def write_edited(dataset: str, backbone_name: str, editor: str, job: Encoding) -> Path:
    """Makes every view of one editor; returns the file.

    Raises:
        UserError: an earlier file is missing, or patch features that the editor needs.
    """
    manifest, counterfactuals = _read(layout.manifest(dataset)), _read(layout.counterfactuals(dataset, editor))
    rows = torch.tensor(edited_rows(manifest, counterfactuals))
    pooled = visual_side(manifest) == "image" and bool((counterfactuals["level"] == "patches").any())
    encoded = [view for view in EDITED if not (pooled and view in POOLED)]
    reference = layout.reference_image(dataset)
    inputs: dict[str, Sequence[Input]] = {view: view_inputs(manifest, counterfactuals, view, reference) for view in encoded}
    if _joint(job):
        inputs |= {name: pair_inputs(manifest, counterfactuals, name, reference) for name in EDITED_PAIRS}
    digests = _encode_all(job, inputs)
    tensors = {name: job.store.pooled(keys) for name, keys in digests.items()} | _scores(job, digests)
    tensors = {name: _per_post(name, value, len(rows)) for name, value in tensors.items()}
    if pooled:
        tensors |= _pooled(dataset, backbone_name, job, manifest, counterfactuals, tensors["v_0"][0])
    path = layout.features(dataset, backbone_name, editor)
    write_tensors(path, {"rows": rows, **tensors}, _metadata(job, manifest, tensors["t_0"], tensors["v_0"]))
    return path


def show_examples(dataset: str, classes: Sequence[str], backbone: Any) -> None:
    """Lets a multimodal LLM see posts of the train split with their answers before it is asked (`features.examples`); comes before the store is opened."""
    backbone.show(examples(_read(layout.manifest(dataset)), classes, backbone.settings, layout.reference_image(dataset)), layout.raw(dataset))


def _joint(job: Encoding) -> bool:
    """Whether the backbone reads pairs."""
    return hasattr(job.backbone, "joint_dim")


def _replies(job: Encoding) -> bool:
    """Whether the backbone writes replies."""
    return _joint(job) and job.backbone.settings.generate > 0  # type: ignore[attr-defined]


def _judged(manifest: pl.DataFrame) -> list[bool]:
    """Posts of validation and test splits: what no method trains on."""
    split = manifest["split"]
    return (~(split.str.starts_with("oracle") | (split == "train"))).to_list()


def _unparsed(manifest: pl.DataFrame, replies: torch.Tensor) -> dict[str, dict[str, int]]:
    """By split how many replies were written, and how many of them name no class; told in the log too."""
    frame = pl.DataFrame({"split": manifest["split"], "reply": replies.numpy()}).filter(pl.col("reply") != UNASKED)
    counts = frame.group_by("split").agg(replies=pl.len(), unparsed=(pl.col("reply") == UNPARSED).sum()).sort("split")
    for split, written, unparsed in counts.iter_rows():
        print(f"replies, split {split}: {unparsed} of {written} unparsed ({unparsed / written:.1%})", file=sys.stderr)
    return {split: {"replies": written, "unparsed": unparsed} for split, written, unparsed in counts.iter_rows()}


def _scores(job: Encoding, digests: dict[str, list[bytes]]) -> dict[str, torch.Tensor]:
    """Log-likelihoods of the answers, (n, V, C) for each view and pair; nothing where none are scored."""
    if not _joint(job) or not job.backbone.settings.zero_shot:  # type: ignore[attr-defined]
        return {}
    return {score_name(name): job.store.values(keys, "scores") for name, keys in digests.items()}


def _per_post(name: str, value: torch.Tensor, posts: int) -> torch.Tensor:
    """Splits the rows of swaps: (M * K, ...) -> (M, K, ...), where both sides are swapped (M * K * K, ...) -> (M, K, K, ...)."""
    if "_swap" not in name:
        return value
    each = len(value) // posts
    sides = (math.isqrt(each),) * 2 if name.endswith("_tv") else (each,)
    return value.reshape(posts, *sides, *value.shape[1:])


def _pooled(
    dataset: str, backbone_name: str, job: Encoding, manifest: pl.DataFrame, counterfactuals: pl.DataFrame, blank: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The POOLED views from the patch features of the factual images."""
    patches = Patches(layout.tokens(dataset, backbone_name, "factual"), ids_digest(manifest["id"]))
    factual, _ = read_tensors(layout.features(dataset, backbone_name, "factual"))
    return patch_views(manifest, counterfactuals, windows_of(job), patches, factual["v"], blank)


def windows_of(job: Encoding) -> Callable[[str], Window]:
    """Image path -> the part of the image that its patches cover: read off a ramp of the same shape, once for each shape."""
    window = functools.cache(lambda size: crop_window(job.backbone, size))

    def of(path: str) -> Window:
        width, height = image_size(job.root, path)
        longer = max(width, height)
        return window((max(1, round(RAMP * width / longer)), max(1, round(RAMP * height / longer))))

    return of


def _encode_all(job: Encoding, views: dict[str, Sequence[Input]]) -> dict[str, list[bytes]]:
    """Encodes all views in one pass, so that texts of all of them share batches; the keys of each view."""
    digests = iter(encode(job, [item for inputs in views.values() for item in inputs]))
    return {view: [next(digests) for _ in inputs] for view, inputs in views.items()}


def _metadata(job: Encoding, manifest: pl.DataFrame, text: torch.Tensor, image: torch.Tensor) -> dict[str, str]:
    dims = {"text_dim": str(text.shape[-1]), "image_dim": str(image.shape[-1])}
    answers = {}
    if _joint(job):
        answers = {"answers": canonical_json(job.backbone.model.classes), "model_key": job.backbone.model_key}  # type: ignore[attr-defined]
    if _joint(job) and job.backbone.examples:  # type: ignore[attr-defined]
        answers["shots"] = canonical_json([one.id for one in job.backbone.examples])  # type: ignore[attr-defined]
    return {"ids_sha256": ids_digest(manifest["id"]), "backbone_key": job.backbone.key, **dims, **answers}


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise UserError(f"{path} is missing", fix="run the earlier stages: snakemake --cores all")
    return pl.read_parquet(path)
