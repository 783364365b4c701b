"""Image views made of cached patch features: cells are left out and the rest is pooled again (`level: patches`). No image is encoded for them.

    v_s    = pool( mean of f_p over p in S )
    v_c    = pool( mean of f_p over p in C )
    v_swap = pool( mean over all p of: f_p where p in C, else f'_p where p in S', else the mean of f' over S' )

f_p are the patch features of a post, f' those of its donor; S holds the patches (nearly) free of core, C those inside the core without its rim, S' is the
donor's S. `pool` gives the mean patch the form of a pooled feature: the columns that are the mean patch are taken as they are; others (class token, pooler)
are predicted from it by ridge regression on the factual features of train posts.

The price: a patch feature knows its neighbours, for the tower mixed them before. What was left out is still told by what was kept (docs/counterfactuals.md
has the figures). Letters: N posts, M edited ones, K swaps, P = g x g patches, D patch width, Dv pooled width, m mask cells per side.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from causalroute.counterfactual.pixels import inner, unpack_mask
from causalroute.errors import UserError
from causalroute.features.window import Window

Floats = NDArray[np.float32]
POINTS = 4
"""Points per axis at which a mask is looked up in a patch."""
FREE = 0.1
"""A patch with a smaller share of core is context."""
INSIDE = 0.5
"""A patch with a larger share of the core without its rim is core."""
RIDGE = 1e-2
"""Penalty of the regression of `pool`, relative to the spread of the patches."""
ALIKE = 0.01
"""Columns that differ from the mean patch by less than this share of its spread are the mean patch: half precision rounds."""


class Patches:
    """Patch features of N posts, read from their file post by post.

    Args:
        path: `tokens/factual.safetensors`.
        digest: `ids_sha256` that the file must carry.

    Raises:
        UserError: there is no such file, it belongs to other posts, or the patches form no square grid.
    """

    def __init__(self, path: Path, digest: str) -> None:
        if not path.is_file():
            raise UserError(
                "an editor of level 'patches' needs the patch features of the posts, and there are none",
                where=str(path),
                fix="run the whole pipeline (make reproduce), which makes them first",
            )
        with safe_open(path, framework="pt") as stream:
            if (stream.metadata() or {}).get("ids_sha256") != digest:
                raise UserError("the patch features belong to another manifest", where=str(path), fix="run the tokens stage again")
            self.values = stream.get_slice("v")
            lengths = stream.get_tensor("v_lengths")
        count = int(lengths.max())
        self.grid = round(count**0.5)
        if self.grid**2 != count or int(lengths.min()) != count:
            raise UserError(f"{count} patches are no square grid of one size", where=str(path), fix="use level: pixels with this backbone")

    def __getitem__(self, row: int) -> Floats:
        """(P, D) float32 of one post."""
        return self.values[row * self.grid**2 : (row + 1) * self.grid**2].float().numpy()


class Pool:
    """Mean patches to pooled features.

    Args:
        pooled: (N, Dv) factual image features.
        means: (N, D) mean patches of the same posts.
    """

    def __init__(self, pooled: Floats, means: Floats) -> None:
        width = means.shape[1]
        spread = means.std(axis=0).mean() + 1e-9
        same = pooled.shape[1] >= width and np.abs(pooled[:, -width:] - means).mean() < ALIKE * spread
        self.kept = width if same else 0
        self.centre, self.offset = means.mean(axis=0), pooled[:, : pooled.shape[1] - self.kept].mean(axis=0)
        centred = (means - self.centre).astype(np.float64)
        gram = centred.T @ centred
        penalty = RIDGE * np.trace(gram) / width * np.eye(width)
        target = pooled[:, : pooled.shape[1] - self.kept] - self.offset
        self.weight = np.linalg.solve(gram + penalty, centred.T @ target)  # (D, Dv - kept)

    def __call__(self, means: Floats) -> Floats:
        """(B, D) -> (B, Dv)."""
        predicted = (means - self.centre) @ self.weight + self.offset
        return np.concatenate([predicted, means[:, means.shape[1] - self.kept :]], axis=1).astype(np.float32)


def shares(mask: NDArray[np.bool_], window: Window, grid: int) -> Floats:
    """Share of core in each patch: (g * g,).

    Args:
        mask: (m, m) over the whole image, True = core.
        window: part (x0, y0, x1, y1) of the image that the patches cover, as fractions.
        grid: g.
    """
    at = (np.arange(grid * POINTS) + 0.5) / (grid * POINTS)
    side = mask.shape[0]
    across, down = (np.clip(((low + at * (high - low)) * side).astype(int), 0, side - 1) for low, high in ((window[0], window[2]), (window[1], window[3])))
    seen = mask[down][:, across].reshape(grid, POINTS, grid, POINTS)
    return seen.mean(axis=(1, 3), dtype=np.float32).ravel()


def context_patches(share: Floats) -> NDArray[np.bool_]:
    """S: patches (nearly) free of core; where there is none, those with the least of it."""
    return share <= max(FREE, float(share.min()))


def core_patches(share: Floats) -> NDArray[np.bool_]:
    """C: patches inside the core; where it fills none, those with the most of it."""
    return share >= min(INSIDE, float(share.max()))


def patch_views(
    manifest: pl.DataFrame, counterfactuals: pl.DataFrame, windows: Callable[[str], Window], patches: Patches, pooled: torch.Tensor, blank: torch.Tensor
) -> dict[str, torch.Tensor]:
    """v_s, v_c (M, Dv) and v_swap (M, K, Dv), float16.

    Args:
        manifest: N posts.
        counterfactuals: M rows of an editor.
        windows: image path -> the part of it that the patches cover.
        patches: of the N posts.
        pooled: (N, Dv) factual image features.
        blank: (Dv,) what a post without image has in every view.
    """
    position = {name: row for row, name in enumerate(manifest["id"])}
    paths = manifest["image"].to_list()
    pool = _fit(manifest, patches, pooled)
    cells: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
    for name, bits, side in counterfactuals.select("id", "mask", "mask_side").iter_rows():
        if bits is not None:
            mask, window = unpack_mask(bits, side), windows(paths[position[name]])
            cells[name] = context_patches(shares(mask, window, patches.grid)), core_patches(shares(inner(mask), window, patches.grid))
    found: dict[str, list[Floats]] = {"v_s": [], "v_c": [], "v_swap": []}
    empty = blank.float().numpy()
    for name, donors in counterfactuals.select("id", "v_donor").iter_rows():
        if name not in cells:
            own = {"v_s": empty, "v_c": empty, "v_swap": np.repeat(empty[None], len(donors), axis=0)}
        else:
            own = _views(pool, patches[position[name]], cells[name], [(patches[position[donor]], cells[donor][0]) for donor in donors])
        for view, value in own.items():
            found[view].append(value)
    return {view: torch.from_numpy(np.stack(values)).half() for view, values in found.items()}


def _fit(manifest: pl.DataFrame, patches: Patches, pooled: torch.Tensor) -> Pool:
    """`pool`, from the train posts that have an image."""
    chosen = manifest.with_row_index("row").filter((pl.col("split") == "train") & pl.col("image").is_not_null())["row"].to_list()
    return Pool(pooled[chosen].float().numpy(), np.stack([patches[row].mean(axis=0) for row in chosen]))


def _views(
    pool: Pool, features: Floats, cells: tuple[NDArray[np.bool_], NDArray[np.bool_]], donors: list[tuple[Floats, NDArray[np.bool_]]]
) -> dict[str, Floats]:
    """The three views of one post."""
    context, core = cells
    swaps = []
    for other, free in donors:
        background = np.where(free[:, None], other, other[free].mean(axis=0))
        swaps.append(np.where(core[:, None], features, background).mean(axis=0))
    means = pool(np.stack([features[context].mean(axis=0), features[core].mean(axis=0), *swaps]))
    return {"v_s": means[0], "v_c": means[1], "v_swap": means[2:]}
