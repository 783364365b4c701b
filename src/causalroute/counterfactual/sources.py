"""What an editor may use besides the posts it edits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.config import Backbone as BackboneSettings


@dataclasses.dataclass(frozen=True)
class Sources:
    """What an editor may use besides the manifest."""

    root: Path
    """folder that image paths are relative to"""
    truth: pl.DataFrame | None = None
    """the generator's truth; None unless the editor is one of the `truth` oracles"""
    rewrites: pl.DataFrame | None = None
    """published rewrites of train texts with their flipped label (columns of rewrites.parquet); None or no rows where there are none"""
    backbone: tuple[BackboneSettings, str] | None = None
    """settings and name of the backbone; needed by the editors that look at a model"""
    features: Callable[[Sequence[str]], tuple[NDArray[np.float32], NDArray[np.float32]]] | None = None
    """ids of M posts -> their factual text and image features, (M, Dt) and (M, Dv); needed by the editors that train a vanilla fusion head"""
    cache: Path | None = None
    """folder for replies of language models, kept by content; None keeps none"""
    threads: int = 1
    """image batches worked on at a time; changes no bit of the result"""
