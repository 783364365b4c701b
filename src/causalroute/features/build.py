"""Feature files of a data set: the factual pair of every post, or the views of one editor.

`factual.safetensors` holds t (N, Dt) and v (N, Dv) in manifest order; `factual.tokens.safetensors` t (N, T, D), t_lengths, v (N, P, D), v_lengths (N,).
`<editor>.safetensors` holds rows (M,) int64 (index into the manifest), t_s, t_c, v_s, v_c (M, D), t_0, v_0 (1, D) and t_swap, v_swap (M, K, D).
The image views of an editor of level `patches` are pooled anew from the factual patch features (`pooled.py`); all others are encoded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import torch

from causalroute import layout
from causalroute.counterfactual.views import EDITED, FACTUAL, edited_rows, view_inputs, visual_side
from causalroute.data.images import image_size
from causalroute.errors import UserError
from causalroute.features.encode import Encoding, Input, encode
from causalroute.features.pooled import Patches, patch_views
from causalroute.features.window import Window, crop_window
from causalroute.io import ids_digest, read_tensors, write_tensors

POOLED = ("v_s", "v_c", "v_swap")
"""Views that level `patches` makes without encoding an image."""
RAMP = 256
"""Longer side in pixels of the ramp that shows what the preprocessing crops away."""


def write_factual(dataset: str, backbone_name: str, job: Encoding) -> Path:
    """Encodes every post of the manifest; returns the file."""
    manifest = _read(layout.manifest(dataset))
    digests = _encode_all(job, {view: view_inputs(manifest, None, view, layout.reference_image(dataset)) for view in FACTUAL})
    tensors = {view: job.store.pooled(keys) for view, keys in digests.items()}
    path = layout.features(dataset, backbone_name, "factual")
    write_tensors(path, tensors, _metadata(job, manifest, tensors["t"], tensors["v"]))
    if job.tokens:
        ragged = {view: job.store.tokens(keys) for view, keys in digests.items()}
        ragged |= {f"{view}_lengths": job.store.lengths(keys) for view, keys in digests.items()}
        write_tensors(layout.features(dataset, backbone_name, "factual.tokens"), ragged, _metadata(job, manifest, ragged["t"], ragged["v"]))
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
    digests = _encode_all(job, {view: view_inputs(manifest, counterfactuals, view, layout.reference_image(dataset)) for view in encoded})
    tensors = {view: job.store.pooled(keys) for view, keys in digests.items()}
    for view in {"t_swap", "v_swap"} & set(encoded):
        tensors[view] = tensors[view].reshape(len(rows), -1, tensors[view].shape[1])  # (M * K, D) -> (M, K, D)
    if pooled:
        tensors |= _pooled(dataset, backbone_name, job, manifest, counterfactuals, tensors["v_0"][0])
    path = layout.features(dataset, backbone_name, editor)
    write_tensors(path, {"rows": rows, **tensors}, _metadata(job, manifest, tensors["t_0"], tensors["v_0"]))
    return path


def _pooled(
    dataset: str, backbone_name: str, job: Encoding, manifest: pl.DataFrame, counterfactuals: pl.DataFrame, blank: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The POOLED views from the patch features of the factual images."""
    patches = Patches(layout.features(dataset, backbone_name, "factual.tokens"), ids_digest(manifest["id"]))
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
    return {"ids_sha256": ids_digest(manifest["id"]), "backbone_key": job.backbone.key, **dims}


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise UserError(f"{path} is missing", fix="run the earlier stages: snakemake --cores all")
    return pl.read_parquet(path)
