"""The inputs of every view, in the order in which their features are stored.

Views: t, v factual; t_s, v_s context only; t_c, v_c core only; t_0, v_0 no treatment (one input); t_swap, v_swap K context swaps per item.
An input knows what it is made of, not its pixels: `content_key` needs no decoding, so features that exist are found without opening an image.
Where the visual side is published attribute words, its views are texts too; where there is none, they are the empty text. A post without image among posts
with one has the reference image v_0 in every view of its visual side: there is no treatment, and nothing to swap.

How an image is edited is the `level` of its row: pixels (a core mask with a rim), EXACT (a mask without one: the context is a place, not an outline) or
REDRAWN (the true mark of injected data: v_s the mark on plain grey, v_c the image without it, v_swap the image with the donor's mark).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from causalroute.counterfactual.pixels import GREY, REFERENCE_SIDE, background_of, fill_core, isolate_core, transplant, unpack_mask
from causalroute.errors import UserError
from causalroute.io import sha256_bytes, sha256_file

if TYPE_CHECKING:
    from PIL import Image

KEY_AS_IS, KEY_EDITED = b"views-1", b"views-2"
"""Parts of the content keys of texts and untouched images, and of edited images; the second is raised when a pixel edit changes what it makes."""
SLIVER = 200
"""Longest side in shorter sides: preprocessing that scales the shorter side to 224 pixels would fill the memory with a longer image."""
MASK = "[MASK]"
"""Stands for a removed token in counterfactual texts; a backbone maps it to its own mask token."""
FACTUAL = ("t", "v")
EDITED = ("t_s", "t_c", "t_0", "t_swap", "v_s", "v_c", "v_0", "v_swap")
SWAP_FILL = "blur"
"""How a donor's core is filled, unless the editor paints in: interpolated from around it, for a flat patch would show its silhouette."""

EXACT, REDRAWN = "exact", "redrawn"
"""Levels of a row that an editor decides by itself (module docstring)."""
KEY_MARKED = b"overlays-1"
"""Part of the content key of images with a mark; raised when marks are drawn otherwise."""
LENT = 8
"""Donors kept in memory, decoded: those that the threads are at. Photos may be large, so no more."""

Visual = Literal["image", "attributes", "none"]


@dataclasses.dataclass(frozen=True)
class TextInput:
    """A text to encode."""

    text: str
    """as it is, with MASK for removed tokens"""

    def content_key(self) -> str:
        """Hex digest of the content."""
        return sha256_bytes(KEY_AS_IS, b"text", self.text.encode())


@dataclasses.dataclass(frozen=True)
class ImageInput:
    """An image to encode: a file and the edit to make while loading it."""

    path: str
    """relative to the data root, posix (op "reference": as it is)"""
    image_sha256: str
    """of the file's bytes"""
    op: Literal["original", "context", "core", "swap", "reference", "mark"] = "original"
    """v, v_s, v_c, v_swap, v_0, the mark alone on grey"""
    mask: bytes = b""
    """packed bits of the core mask"""
    side: int = 0
    """cells per side of `mask`"""
    donor_path: str = ""
    """op "swap": the image whose background is used"""
    donor_sha256: str = ""
    """of the donor's file"""
    donor_mask: bytes = b""
    """packed bits of the donor's core mask"""
    donor_side: int = 0
    """cells per side of `donor_mask`"""
    fill: str = ""
    """ops "context" and "swap": what a removed core is filled with"""
    rim: bool = True
    """whether the masks have a rim that is never shown"""
    overlay: str = ""
    """the mark drawn on the image (injected data); likewise `donor_overlay`"""
    donor_overlay: str = ""

    def content_key(self) -> str:
        """Hex digest of file contents, edit, masks, fill and marks; no image is opened."""
        names = (self.op, self.image_sha256, str(self.side), self.donor_sha256, str(self.donor_side), self.fill)
        marks = (KEY_MARKED, self.overlay.encode(), self.donor_overlay.encode()) if self.overlay or self.donor_overlay else ()
        rest = (*(name.encode() for name in names), self.mask, self.donor_mask, *marks, *(() if self.rim else (b"no rim",)))
        return sha256_bytes(KEY_EDITED if self.mask else KEY_AS_IS, b"image", *rest)

    def load(self, root: Path) -> Image.Image:
        """The edited RGB image.

        Args:
            root: folder that `path` and `donor_path` are relative to.

        Raises:
            UserError: a file is missing or no image.
        """
        from causalroute.data.images import open_image
        from causalroute.data.overlays import draw

        if self.op == "reference":
            return open_image(Path(self.path).parent, Path(self.path).name)
        if self.op == "mark":
            return draw(_plain(), self.overlay)
        image = stout(open_image(root, self.path, overlay=self.overlay))
        if self.op == "original":
            return image
        mask = unpack_mask(self.mask, self.side)
        if self.op == "context":
            return fill_core(image, mask, self.fill)
        if self.op == "core":
            return isolate_core(image, mask, self.rim)
        lender = (self.donor_path, self.donor_sha256, self.donor_overlay)
        return transplant(image, mask, _background(root, lender, self.donor_mask, self.donor_side, image.size, self.fill), self.rim)

    def neighbour(self) -> str:
        """Inputs with an equal one share work when they are loaded one after the other: swaps that borrow from the same donor."""
        return self.donor_path


@functools.lru_cache(maxsize=LENT)
def _background(root: Path, lender: tuple[str, str, str], mask: bytes, side: int, size: tuple[int, int], fill: str) -> Image.Image:
    """A donor (path, hash, mark) lends to several posts; its background is made once for each size, and nobody changes it."""
    return background_of(_donor(root, *lender), unpack_mask(mask, side), size, fill)


@functools.lru_cache(maxsize=LENT)
def _donor(root: Path, path: str, sha256: str, overlay: str) -> Image.Image:
    from causalroute.data.images import open_image

    return open_image(root, path, overlay=overlay)


def _plain() -> Image.Image:
    from PIL import Image

    return Image.new("RGB", (REFERENCE_SIDE, REFERENCE_SIDE), GREY)


def stout(image: Image.Image) -> Image.Image:
    """The image, its shorter side stretched where it is a sliver; all others as they are."""
    least = max(image.size) // SLIVER
    return image if min(image.size) >= least else image.resize((max(image.width, least), max(image.height, least)))


def visual_side(manifest: pl.DataFrame) -> Visual:
    """What the visual side of a manifest is: images as soon as one post has one."""
    if manifest["image"].null_count() < manifest.height:
        return "image"
    return "attributes" if manifest["attributes"].null_count() < manifest.height else "none"


def edited_rows(manifest: pl.DataFrame, counterfactuals: pl.DataFrame) -> list[int]:
    """Row of the manifest that each of the M rows of `counterfactuals` belongs to.

    Raises:
        UserError: the two do not belong together.
    """
    position = {name: row for row, name in enumerate(manifest["id"])}
    unknown = [name for name in counterfactuals["id"] if name not in position]
    if unknown:
        raise UserError(f"{len(unknown)} counterfactuals belong to no post, the first to {unknown[0]!r}", fix="make the counterfactuals again")
    return [position[name] for name in counterfactuals["id"]]


def view_inputs(manifest: pl.DataFrame, counterfactuals: pl.DataFrame | None, view: str, reference: Path | None = None) -> list[TextInput] | list[ImageInput]:
    """Inputs of one view.

    Args:
        manifest: N rows.
        counterfactuals: M rows; not needed for the views t, v and t_0.
        view: N inputs for t and v; one for t_0 and v_0; M for t_s, t_c, v_s, v_c; M * K in row-major order for t_swap and v_swap.
        reference: file of the reference image; needed for v_0 of images, and for every visual view where a post has no image.

    Raises:
        UserError: an unknown view, or an argument that the view needs is missing.
    """
    if view not in FACTUAL + EDITED:
        raise UserError(f"unknown view {view!r}", fix=f"choose from {sorted(FACTUAL + EDITED)}")
    if view in ("t", "t_0"):
        return [TextInput(text) for text in (manifest["text"] if view == "t" else [MASK])]
    side = visual_side(manifest)
    if view == "v":
        return _originals(manifest, reference) if side == "image" else [TextInput(words or "") for words in manifest["attributes"]]
    if view == "v_0":
        return [_reference(reference)] if side == "image" else [TextInput("")]
    if counterfactuals is None:
        raise UserError(f"view {view!r} needs counterfactuals", fix="pass the editor's parquet file")
    if view.startswith("t_"):
        return _texts(counterfactuals[view])
    if side == "image":
        return _edited(manifest, counterfactuals, view, reference)
    return _texts(counterfactuals[view.replace("v_", "attr_")])


def _texts(column: pl.Series) -> list[TextInput]:
    flat = column.explode() if column.dtype == pl.List else column
    return [TextInput(text or "") for text in flat]


def _reference(path: Path | None) -> ImageInput:
    if path is None or not path.is_file():
        where = "not given" if path is None else f"{path} is missing"
        raise UserError("view 'v_0' (and a post without image) needs the reference image", where=where, fix="run the stage counterfactuals --editor reference")
    return ImageInput(str(path), sha256_file(path), "reference")


def _originals(manifest: pl.DataFrame, reference: Path | None) -> list[ImageInput]:
    rows = zip(*manifest.select("image", "image_sha256"), overlays_of(manifest), strict=True)
    files = [ImageInput(path, sha, overlay=overlay) if path is not None else None for path, sha, overlay in rows]
    blank = _reference(reference) if None in files else None
    return [file or blank for file in files]  # type: ignore[misc]


def overlays_of(manifest: pl.DataFrame) -> list[str]:
    """The mark on the image of each row, empty where there is none; only injected data have any."""
    return manifest["overlay"].fill_null("").to_list() if "overlay" in manifest.columns else [""] * manifest.height


def _edited(manifest: pl.DataFrame, counterfactuals: pl.DataFrame, view: str, reference: Path | None) -> list[ImageInput]:
    files = dict(zip(manifest["id"], _originals(manifest, reference), strict=True))
    masks = {name: (bits, side) for name, bits, side in counterfactuals.select("id", "mask", "mask_side").iter_rows()}
    levels = counterfactuals["level"] if "level" in counterfactuals.columns else [None] * counterfactuals.height
    cores = counterfactuals["v_core"].to_list() if "v_core" in counterfactuals.columns else [None] * counterfactuals.height
    edited = []
    for (name, donors, fill), level, shown in zip(counterfactuals.select("id", "v_donor", "fill").iter_rows(), levels, cores, strict=True):
        item, count = files[name], len(donors) if view == "v_swap" else 1
        if item.op == "reference":
            edited += [item] * count
        elif view == "v_swap":
            # A core is the post's own unless `v_core` says otherwise; None there is the post as it is.
            edited += [_swapped(item, core, donor, (files, masks), fill, level) for donor, core in zip(donors, shown or [name] * count, strict=True)]
        elif level == REDRAWN:
            edited.append(_redrawn(item, view, item))
        else:
            edited.append(_one_sided(item, masks[name], view, fill, level != EXACT))
    return edited


Known = tuple[Mapping[str, ImageInput], Mapping[str, tuple[bytes, int]]]
"""Images and masks by post."""


def _swapped(item: ImageInput, core: str | None, donor: str, known: Known, fill: str, level: str | None) -> ImageInput:
    files, masks = known
    if core is None:
        return item
    if level == REDRAWN:
        return _redrawn(files[core], "v_swap", files[donor])
    return _swap(files[core], masks[core], files[donor], masks[donor], fill, level != EXACT)


def _redrawn(item: ImageInput, view: str, donor: ImageInput) -> ImageInput:
    """The item's image with the donor's mark or none, or its mark alone."""
    if view == "v_s":
        return ImageInput("", "", "mark", overlay=item.overlay)
    return dataclasses.replace(item, overlay=donor.overlay if view == "v_swap" else "")


def _one_sided(item: ImageInput, mask: tuple[bytes, int], view: str, fill: str, rim: bool) -> ImageInput:
    op: Literal["context", "core"] = "context" if view == "v_s" else "core"
    return dataclasses.replace(item, op=op, mask=mask[0], side=mask[1], fill=fill if op == "context" else "", rim=rim)


def _swap(item: ImageInput, mask: tuple[bytes, int], donor: ImageInput, donor_mask: tuple[bytes, int], fill: str, rim: bool) -> ImageInput:
    behind = fill if fill == "telea" else SWAP_FILL
    return ImageInput(
        item.path, item.image_sha256, "swap", mask[0], mask[1], donor.path, donor.image_sha256, donor_mask[0], donor_mask[1], behind,
        rim=rim, overlay=item.overlay, donor_overlay=donor.overlay,
    )  # fmt: skip
