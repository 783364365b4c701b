"""A saved model: one folder that predicts without the data it was trained on.

config.json                classes, method, backbone, editor, temperatures, results, what made it
<method>.safetensors       weights of all training seeds and the scales of the features: of the method, and of the biased reference beside it
editor.safetensors         what the editor fitted, where that is more than words
reference.png              stands in for a missing image: the blurred mean train image
backbone/                  the frozen encoder, unless it is a pinned hub id or a Python package
looker/                    likewise the encoder that finds the cores of images, where that is another one
README.md                  the model card
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from causalroute.config import Backbone, parse
from causalroute.errors import UserError
from causalroute.evaluation.predict import Weights
from causalroute.features.folders import PACKAGE
from causalroute.io import canonical_json, read_json, read_tensors, write_json

FORMAT = 1
"""Raised when a folder of the version before can no longer be read."""
FORMER = ("tokens",)
"""Settings of a backbone that earlier versions saved, and nothing reads any more."""
CONFIG, EDITOR, REFERENCE, CARD, BACKBONE, LOOKER = "config.json", "editor.safetensors", "reference.png", "README.md", "backbone", "looker"
FIELDS = ("model", "text_model", "image_model")
"""Settings of a backbone that name a model."""


@dataclasses.dataclass(frozen=True)
class Bundle:
    """What lies in the folder of a saved model."""

    folder: Path
    config: dict[str, Any]
    """config.json"""
    backbone: Backbone
    """settings of the frozen encoder, its folders found"""
    looker: Backbone | None = None
    """likewise of the encoder that finds the cores of images; None where the backbone itself does, or nothing is looked for"""

    def weights(self, method: str) -> Weights:
        """Weights of the method or of its reference."""
        return Weights(self.folder / f"{method}.safetensors")

    def editor(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
        """What `causalroute.counterfactual.fitted.restored` takes; None where the model has no editor."""
        told = self.config["editor"]
        if told is None:
            return None
        path = self.folder / EDITOR
        return told, read_tensors(path)[0] if path.is_file() else {}


def open_bundle(folder: Path | str, backbone: str = "") -> Bundle:
    """The saved model in `folder`; weights are read when they are asked for.

    Args:
        folder: written by `assemble`.
        backbone: another folder for the frozen encoder: of the model, or with sub-folders text_model and image_model; its sub-folder looker, where there is
            one, takes the place of the saved looker likewise.

    Raises:
        UserError: there is no saved model, a file is missing, or it is of a later version.
    """
    folder = Path(folder)
    path = folder / CONFIG
    if not path.is_file():
        fix = "name the folder `model` that `causalroute train` or `causalroute export` wrote"
        raise UserError("this is no saved model: config.json is missing", where=str(folder), fix=fix)
    config = read_json(path)
    if not isinstance(config, dict) or "causalroute" not in config:
        raise UserError("this config.json is not of a saved causalroute model", where=str(path), fix="name the folder that `causalroute export` wrote")
    if config["causalroute"] > FORMAT:
        what = f"the model was saved in format {config['causalroute']}, this version reads up to {FORMAT}"
        raise UserError(what, where=str(path), fix="upgrade causalroute")
    for name in filter(None, (config["method"], config["reference"])):
        if not (folder / f"{name}.safetensors").is_file():
            raise UserError(f"the weights of {name!r} are missing", where=str(folder), fix="copy the whole folder, or export the model again")
    looker, other = config.get(LOOKER), str(Path(backbone) / LOOKER) if backbone and (Path(backbone) / LOOKER).is_dir() else ""
    return Bundle(folder, config, _located(config[BACKBONE]["settings"], folder, backbone), looker and _located(looker["settings"], folder, other))


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yields an empty folder to write a saved model in, which takes the place of `folder` on success; on failure nothing has changed.

    Raises:
        UserError: `folder` holds something that is no saved model.
    """
    folder = folder.resolve()
    if folder.is_file() or (folder.exists() and any(folder.iterdir()) and not (folder / CONFIG).is_file()):
        raise UserError("the folder holds something that is no saved model", where=str(folder), fix="name a new folder, or an empty one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / "model"
        made.mkdir()
        yield made
        former = Path(temporary) / "former"
        if folder.exists():
            folder.rename(former)
        try:
            made.rename(folder)
        except OSError:
            if former.exists():
                former.rename(folder)
            raise


def copy(source: Path, target: Path) -> None:
    """Copies a saved model; a saved model at `target` is replaced. Onto itself there is nothing to do.

    Raises:
        UserError: `source` is no saved model, `target` holds something else, or one folder is inside the other.
    """
    open_bundle(source)
    one, other = source.resolve(), target.resolve()
    if one == other:
        return
    if one in other.parents or other in one.parents:
        raise UserError("one folder is inside the other", where=f"{source}, {target}", fix="name a folder beside the saved model")
    with replaced(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)


def lay(bundle: Bundle, folder: Path) -> None:
    """Writes a saved model into a folder that huggingface_hub prepared: it took away the config.json, and may have left files of another model."""
    if bundle.folder.resolve() == folder.resolve():
        write_json(folder / CONFIG, bundle.config)
        return
    for name in (EDITOR, REFERENCE):  # which not every model has
        (folder / name).unlink(missing_ok=True)
    for name in (BACKBONE, LOOKER):  # files of another encoder would make it another one
        shutil.rmtree(folder / name, ignore_errors=True)
    shutil.copytree(bundle.folder, folder, dirs_exist_ok=True)


def _located(settings: dict[str, Any], folder: Path, other: str) -> Backbone:
    """Settings whose folders inside the saved model are found, or replaced by `other`; packages stay what they are."""

    def place(key: str, value: str) -> str:
        if other and value and not value.startswith(PACKAGE):
            return str(Path(other) / key if (Path(other) / key).is_dir() else other)
        return str(folder / value) if value.startswith((f"{BACKBONE}/", f"{LOOKER}/")) else value

    found = {key: value for key, value in settings.items() if key not in FORMER} | {key: place(key, settings[key]) for key in FIELDS}
    return parse(Backbone, canonical_json(found), where=f"{folder / CONFIG}: backbone")
