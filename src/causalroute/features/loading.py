"""Loads models, tokenizers and image processors through transformers' Auto classes, and tells what is wrong where they cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError

from causalroute.errors import UserError


@contextmanager
def _told(folder: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        fix = "the folder must be a complete model in HuggingFace format whose architecture transformers knows (code inside a checkpoint is not run)"
        raise UserError(f"cannot load the {what}: {first}", where=str(folder), fix=fix) from error


def quiet() -> None:
    """Silences the loading bars and reports of transformers: what matters of them is an error here."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def load_model(folder: Path, what: str) -> tuple[Any, set[str]]:
    """The frozen model of `folder` in float32, and the names of weights that the checkpoint lacks (a pooler's only).

    Raises:
        UserError: unreadable, unknown architecture, or weights missing that would be random.
    """
    from transformers import AutoModel

    quiet()
    with _told(folder, what):
        model, info = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True)
    missing = set(info["missing_keys"])
    lacking = sorted(name for name in missing if "pooler" not in name)
    if lacking:
        raise UserError(f"{len(lacking)} weights of the {what} are missing, the first is {lacking[0]!r}", where=str(folder), fix="get the complete checkpoint")
    return model.eval().requires_grad_(False), missing


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of `folder`.

    Raises:
        UserError: there is none.
    """
    from transformers import AutoTokenizer

    with _told(folder, "tokenizer"):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)


PASS_PIXELS = 2 * 224 * 224
"""Pixels of a forward pass: the activations of many more fall out of the processor's cache, which made 16 images half as fast per image as 2."""


class Pixels:
    """The preprocessing that a checkpoint asks for, on PIL images whatever else is installed: one result on every machine.

    Args:
        folder: of the model.
        batch_size: the most images of a forward pass; `batch_size` of this object is what fits PASS_PIXELS.

    Raises:
        UserError: there is none, or it does not give (3, H, W) pixels of one size for every image.
    """

    def __init__(self, folder: Path, batch_size: int) -> None:
        from transformers import AutoImageProcessor

        with _told(folder, "image preprocessing"):
            self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
            shapes = {tuple(self(Image.new("RGB", size)).shape) for size in ((64, 64), (90, 50))}
        if len(shapes) != 1 or len(next(iter(shapes))) != 3:
            fix = "choose a backbone whose preprocessor_config.json resizes every image to one size (not a NaFlex or tiled model)"
            raise UserError(f"the image preprocessing gives shapes {sorted(shapes)}, not one (3, H, W)", where=str(folder), fix=fix)
        _, height, width = next(iter(shapes))
        self.batch_size = max(1, min(batch_size, PASS_PIXELS // (height * width)))

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """One RGB image to float32 pixels (3, H, W)."""
        values = self.processor(image, return_tensors="pt")["pixel_values"][0]
        return torch.as_tensor(values, dtype=torch.float32)
