"""Which code does the arithmetic: the Triton kernels on CUDA devices, plain torch everywhere else.

A backend asked for by name is that backend or an error. The log says which one is at work, once for each kind of device.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from typing import Literal

import torch

Backend = Literal["auto", "triton", "reference"]
NAMES = ("auto", "triton", "reference")
log = logging.getLogger(__name__)


@functools.cache
def has_triton() -> bool:
    """Whether the package triton can be found; it is not imported."""
    try:
        return importlib.util.find_spec("triton") is not None
    except ValueError:  # a module that was hidden by setting it to None
        return False


def choose(name: str, device: torch.device) -> Literal["triton", "reference"]:
    """The backend for tensors on `device`.

    Raises:
        ValueError: for an unknown name, or "triton" with tensors that it cannot take.
        RuntimeError: for "triton" where that package is not installed.
    """
    if name not in NAMES:
        raise ValueError(f"unknown routing backend {name!r}: choose from {list(NAMES)}")
    taken = _pick(name, device)
    if not torch.compiler.is_compiling():  # a log entry cannot be traced
        _say(taken, device.type, name == "auto")
    return taken


def _pick(name: str, device: torch.device) -> Literal["triton", "reference"]:
    if name == "auto":
        return "triton" if device.type == "cuda" and has_triton() else "reference"
    if name == "reference":
        return "reference"
    if not has_triton():
        raise RuntimeError('backend "triton" needs the package triton: install it, or take backend "reference"')
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f'backend "triton" needs CUDA tensors, not {device.type}: take backend "auto" or "reference"')
    return "triton"


@functools.cache
def _say(name: str, device_type: str, automatic: bool) -> None:
    if device_type == "cuda" and name == "reference" and automatic:
        log.warning('routing on cuda in plain torch: the package triton is not installed; backend "reference"')
    else:
        log.info("routing backend on %s: %s", device_type, name)
