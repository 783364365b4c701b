"""The inputs of every view, in the order in which their features are stored.

Views: t, v factual; t_s, v_s context only; t_c, v_c core only; t_0, v_0 no treatment (one input); t_swap, v_swap K context swaps per item.
An input knows what it is made of, not its pixels: `content_key` needs no decoding, so features that exist are found without opening an image.
Where the visual side is published attribute words, its views are texts too; where there is none, they are the empty text. A post without image among posts
with one has the reference image v_0 in every view of its visual side: there is no treatment, and nothing to swap.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from causalroute.counterfactual.pixels import background_of, fill_core, isolate_core, transplant, unpack_mask
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
    op: Literal["original", "context", "core", "swap", "reference"] = "original"
    """v, v_s, v_c, v_swap, v_0"""
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

    def content_key(self) -> str:
        """Hex digest of file contents, edit, masks and fill; no image is opened."""
        names = (self.op, self.image_sha256, str(self.side), self.donor_sha256, str(self.donor_side), self.fill)
        return sha256_bytes(KEY_EDITED if self.mask else KEY_AS_IS, b"image", *(name.encode() for name in names), self.mask, self.donor_mask)

    def load(self, root: Path) -> Image.Image:
        """The edited RGB image.

        Args:
            root: folder that `path` and `donor_path` are relative to.

        Raises:
            UserError: a file is missing or no image.
        """
        from causalroute.data.images import open_image

        if self.op == "reference":
            return open_image(Path(self.path).parent, Path(self.path).name)
        image = _stout(open_image(root, self.path))
        if self.op == "original":
            return image
        mask = unpack_mask(self.mask, self.side)
        if self.op == "context":
            return fill_core(image, mask, self.fill)
        if self.op == "core":
            return isolate_core(image, mask)
        return transplant(image, mask, _background(root, self.donor_path, self.donor_sha256, self.donor_mask, self.donor_side, image.size, self.fill))

    def neighbour(self) -> str:
        """Inputs with an equal one share work when they are loaded one after the other: swaps that borrow from the same donor."""
        return self.donor_path


@functools.lru_cache(maxsize=LENT)
def _background(root: Path, path: str, sha256: str, mask: bytes, side: int, size: tuple[int, int], fill: str) -> Image.Image:
    """A donor lends to several posts; its background is made once for each size, and nobody changes it."""
    return background_of(_donor(root, path, sha256), unpack_mask(mask, side), size, fill)


@functools.lru_cache(maxsize=LENT)
def _donor(root: Path, path: str, sha256: str) -> Image.Image:
    from causalroute.data.images import open_image

    return open_image(root, path)


def _stout(image: Image.Image) -> Image.Image:
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
    files = [ImageInput(path, sha) if path is not None else None for path, sha in manifest.select("image", "image_sha256").iter_rows()]
    blank = _reference(reference) if None in files else None
    return [file or blank for file in files]  # type: ignore[misc]


def _edited(manifest: pl.DataFrame, counterfactuals: pl.DataFrame, view: str, reference: Path | None) -> list[ImageInput]:
    files = dict(zip(manifest["id"], _originals(manifest, reference), strict=True))
    masks = {name: (bits, side) for name, bits, side in counterfactuals.select("id", "mask", "mask_side").iter_rows()}
    rows = counterfactuals.select("id", "v_donor", "fill")
    if view == "v_swap":
        return [_swap(files[name], masks[name], files[donor], masks[donor], fill) for name, donors, fill in rows.iter_rows() for donor in donors]
    op: Literal["context", "core"] = "context" if view == "v_s" else "core"
    edited = []
    for name, _, fill in rows.iter_rows():
        bits, side = masks[name]
        if files[name].op == "reference":
            edited.append(files[name])
            continue
        edited.append(dataclasses.replace(files[name], op=op, mask=bits, side=side, fill=fill if op == "context" else ""))
    return edited


def _swap(item: ImageInput, mask: tuple[bytes, int], donor: ImageInput, donor_mask: tuple[bytes, int], fill: str) -> ImageInput:
    if item.op == "reference":
        return item
    behind = fill if fill == "telea" else SWAP_FILL
    return ImageInput(item.path, item.image_sha256, "swap", mask[0], mask[1], donor.path, donor.image_sha256, donor_mask[0], donor_mask[1], behind)
