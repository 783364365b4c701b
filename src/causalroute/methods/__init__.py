"""One file per method: `Settings`, `EDITOR` and `Method`. A new file is a new method; nothing else has to be changed."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from causalroute.config import parse, suggest
from causalroute.errors import UserError
from causalroute.io import canonical_json

HELPERS = ("base", "swapping")


def names() -> list[str]:
    """Every method, by module name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in HELPERS)


def load(name: str) -> ModuleType:
    """The module of a method.

    Raises:
        UserError: for an unknown name, with the closest known one.
    """
    if name not in names():
        raise UserError(
            f"unknown method {name!r}; {suggest(name, names())}", where="params.yaml: methods", fix="docs/methods.md lists the methods and shows how to add one"
        )
    return importlib.import_module(f"causalroute.methods.{name}")


def editor_of(name: str, dataset_editor: str) -> str | None:
    """The editor whose counterfactuals a method trains on; None when it needs none."""
    wanted = load(name).EDITOR
    return dataset_editor if wanted == "dataset" else wanted


def settings_of(name: str, values: dict[str, Any]) -> Any:
    """A method's `Settings` from its mapping in params.yaml.

    Raises:
        UserError: for an unknown or ill-typed key.
    """
    return parse(load(name).Settings, canonical_json(values), where=f"params.yaml: methods.{name}")
