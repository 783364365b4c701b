"""Writes a frozen encoder as ONNX files, so that a head (`serving.onnx`) and what it reads run without torch and transformers.

text.onnx         ids, mask (B, T) int64 -> features (B, Dt)
tokenizer.json    texts to these ids and masks, cut and padded as the model wants them, for the package `tokenizers`
image.onnx        pixels (B, 3, H, W) float32 -> features (B, Dv); the metadata `preprocessing` tells how pixels are made of an image

Letters: B texts or images, T tokens, H and W pixels, Dt and Dv widths of the features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from causalroute.errors import UserError
from causalroute.io import atomic, canonical_json
from causalroute.rng import torch_generator
from causalroute.serving.onnx_graph import open_session, require_packages, save, to_onnx

LARGEST = 1e-3
"""Difference of features to torch, in units of the largest one, from which on an export is refused."""
MOST = 2**31 - 2**20
"""Bytes of weights that one file can hold."""
STEPS = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
"""What of a preprocessing is told."""
SAMPLES = ("", "so much fun", "Monday morning, and it rains on my parade again #blessed @friend", "a " * 1000)


def export(backbone: Any, folder: Path, *, notes: Mapping[str, str] = {}) -> list[Path]:
    """Writes the towers of an encoder, each checked against torch before it appears.

    Args:
        backbone: of kind dual_encoder or encoder_pair, as `features.backbone.load_backbone` gives it.
        folder: where the files go.
        notes: further metadata of the graphs, such as `backbone`.

    Returns:
        The files.

    Raises:
        UserError: packages are missing, the encoder is of another kind, too large or without a fast tokenizer, or a graph does not say what torch says.
    """
    require_packages()
    if not hasattr(backbone, "encode_texts"):
        fix = "export the towers of a backbone of kind dual_encoder or encoder_pair"
        raise UserError("a multimodal LLM cannot be exported: its features come out of one model that reads posts as conversations", fix=fix)
    tokenizer = _tokenizer(backbone)
    paths = [folder / "tokenizer.json", folder / "text.onnx"]
    with atomic(paths[0]) as temporary:
        tokenizer.save(str(temporary))
    _texts(backbone, tokenizer, paths[1], {**notes, "max_length": str(backbone.tokens.max_length)})
    if backbone.has_images:
        paths.append(folder / "image.onnx")
        made = {name: value for name, value in backbone.pixels.processor.to_dict().items() if name in STEPS and value is not None}
        _images(backbone, paths[2], {**notes, "preprocessing": canonical_json(made)})
    return paths


class Tower(nn.Module):
    """One side of an encoder: what is traced."""

    def __init__(self, model: nn.Module, encode: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.encode = model, encode

    def forward(self, *inputs: Tensor) -> tuple[Tensor]:
        """Ids and mask, or pixels -> pooled features."""
        return (self.encode(*inputs),)


def _tokenizer(backbone: Any) -> Any:
    """A copy of the tokenizer that cuts and pads by itself."""
    tokens = backbone.tokens
    fast = getattr(tokens.tokenizer, "backend_tokenizer", None)
    if fast is None:
        fix = "take a checkpoint with tokenizer.json"
        raise UserError("the tokenizer of this encoder is written in Python and has no form of its own", where="backbones", fix=fix)
    copy = type(fast).from_str(fast.to_str())
    copy.enable_truncation(tokens.max_length)
    copy.enable_padding(pad_id=tokens.pad_id, pad_token=copy.id_to_token(tokens.pad_id), length=tokens.max_length if tokens.fixed else None)
    return copy


@torch.no_grad()
def _texts(backbone: Any, tokenizer: Any, path: Path, metadata: dict[str, str]) -> None:
    rows = tokenizer.encode_batch(list(SAMPLES[1:3]))
    ids, mask = (torch.tensor([getattr(row, name) for row in rows]) for name in ("ids", "attention_mask"))
    length = None if backbone.tokens.fixed else {1: torch.export.Dim("tokens", max=backbone.tokens.max_length)}
    tower = Tower(getattr(backbone, "text_model", None) or backbone.model.text_model, backbone.encode_texts)
    wanted = [backbone.encode_texts(*backbone.collate([one])) for one in backbone.tokenize_many(SAMPLES)]
    seen = tokenizer.encode_batch(list(SAMPLES))
    fed = {"ids": np.array([row.ids for row in seen]), "mask": np.array([row.attention_mask for row in seen])}
    _write(tower, (ids, mask), list(fed), length, path, metadata, fed, torch.cat(wanted))


@torch.no_grad()
def _images(backbone: Any, path: Path, metadata: dict[str, str]) -> None:
    noise = torch.randint(0, 256, (3, 90, 70, 3), generator=torch_generator(0, "towers"), dtype=torch.uint8).numpy()
    pixels = torch.stack([backbone.preprocess(Image.fromarray(one)) for one in noise])
    tower = Tower(getattr(backbone, "image_model", None) or backbone.model.vision_model, backbone.encode_images)
    _write(tower, (pixels[:2],), ["pixels"], None, path, metadata, {"pixels": pixels.numpy()}, backbone.encode_images(pixels))


def _write(
    tower: Tower,
    example: tuple[Tensor, ...],
    inputs: list[str],
    also: dict[int, torch.export.Dim] | None,
    path: Path,
    metadata: dict[str, str],
    fed: dict[str, np.ndarray[Any, Any]],
    wanted: Tensor,
) -> None:
    """Traces a tower and writes it, if it turns `fed` into `wanted`."""
    if sum(value.numel() * value.element_size() for value in tower.parameters()) > MOST:
        raise UserError("the encoder is larger than 2 GiB, which one ONNX file cannot hold", where=path.stem, fix="choose a smaller backbone")
    try:
        proto = to_onnx(tower, example, inputs, ["features"], also, strict=False)
    except RuntimeError as error:
        raise UserError(f"the encoder cannot be written as an ONNX graph: {error}", where=path.stem, fix="choose another backbone") from error
    with atomic(path) as temporary:
        save(proto, temporary, metadata)
        (found,) = open_session(temporary).run(["features"], fed)
        difference = float(np.abs(found - wanted.numpy()).max() / wanted.abs().max().clamp(min=1e-30))
        if not difference <= LARGEST:  # NaN as well
            what = f"the exported graph differs from torch by {difference:.2g} of the largest feature; {LARGEST:g} is the most"
            raise UserError(what, where=str(path), fix="try other versions of torch, onnxscript and onnxruntime")
