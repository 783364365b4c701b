"""Features of every token and patch, of the posts or of one editor's views: what methods read that route tokens instead of posts.

`tokens/{views}.safetensors` holds for each view x the features x (T, D) float16 of all tokens, post after post and of swaps one after the other, and how many
each has, x_lengths (N,), of swaps (M, K). It is made where it is read alone, for it is some fifty times as large as the pooled features.

Letters: N posts, M edited ones, K swaps, T tokens of all, D width.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import torch

from causalroute import layout
from causalroute.counterfactual.views import EDITED, FACTUAL, edited_rows, view_inputs, visual_side
from causalroute.errors import UserError
from causalroute.features.encode import encode
from causalroute.features.encoding import Encoding
from causalroute.io import ids_digest, write_tensors

VIEWS = tuple(view for view in EDITED if not view.endswith("_0"))
"""Of an editor: what answers are given on."""


def write_tokens(dataset: str, backbone_name: str, views: str, job: Encoding) -> Path:
    """Encodes the posts (`views` = factual) or all views of an editor; returns the file.

    Raises:
        UserError: an editor whose image views are pooled from patches, for of those no patch is left.
    """
    manifest, reference = pl.read_parquet(layout.manifest(dataset)), layout.reference_image(dataset)
    edited = None if views == "factual" else pl.read_parquet(layout.counterfactuals(dataset, views))
    tensors: dict[str, torch.Tensor] = {}
    if edited is not None:
        if visual_side(manifest) == "image" and (edited["level"] == "patches").any():
            where = f"params.yaml: editors.{views}.level"
            raise UserError("image views that are pooled from patch features have no patches", where=where, fix="use level: pixels with methods on tokens")
        tensors["rows"] = torch.tensor(edited_rows(manifest, edited))
    for view in FACTUAL if edited is None else VIEWS:
        digests = encode(job, view_inputs(manifest, edited, view, reference))
        posts = manifest.height if edited is None else edited.height
        shape = (posts, -1) if view.endswith("_swap") else (posts,)
        tensors[view], lengths = job.store.tokens(digests), job.store.lengths(digests)
        tensors[f"{view}_lengths"] = lengths.reshape(shape) if posts else lengths
    path = layout.tokens(dataset, backbone_name, views)
    write_tensors(path, tensors, {"ids_sha256": ids_digest(manifest["id"]), "backbone_key": job.backbone.key})
    return path
