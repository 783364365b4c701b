"""Brings the features of inputs into the store: what it does not hold yet goes through the backbone, everything else is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from causalroute.features.backbone import Backbone
from causalroute.features.encoding import Encoding
from causalroute.features.inputs import Input
from causalroute.features.store import Store


def encode_views(backbone: Backbone, inputs: Sequence[Input], root: Path, store: Store, threads: int = 1) -> torch.Tensor:
    """Pooled features (N, D) float16 of N texts, or of N images; those already in `store` are taken from there.

    Raises:
        UserError: an image is missing or broken, or the backbone has no image tower.
    """
    return store.pooled(encode(Encoding(backbone, store, root, threads), inputs))


def encode(job: Encoding, inputs: Sequence[Input]) -> list[bytes]:
    """Brings the features of `inputs` into the store; returns the key of each.

    Raises:
        UserError: an image is missing or broken, or the backbone has no image tower.
    """
    digests = [job.digest(item) for item in inputs]
    missing = set(job.store.missing(digests))
    todo = {digest: item for digest, item in zip(digests, inputs, strict=True) if digest in missing}
    if not todo:
        return digests
    if hasattr(job.backbone, "chats"):
        from causalroute.features.chat_passes import run
    else:
        from causalroute.features.tower_passes import run
    run(job, todo)
    return digests
