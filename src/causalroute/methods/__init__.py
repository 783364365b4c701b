"""One file per method: `Settings`, `EDITOR` and `Method`. A new file is a new method; nothing else has to be changed.

`SEARCH = {"<setting>": (<value>, ...)}` beside `EDITOR` says which settings a search on validation posts may choose (`candidates`).
"""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from dataclasses import asdict, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from causalroute import layout
from causalroute.config import parse, suggest
from causalroute.errors import UserError
from causalroute.io import canonical_json
from causalroute.variants import module_of

if TYPE_CHECKING:
    from pathlib import Path

    from causalroute.methods.base import Origin, Posts

HELPERS = ("base", "branches", "clue", "grouping", "logistic", "mediated", "swapping")
CANDIDATES = 4
"""Most settings that a search may try for one method: one budget for all."""


def names() -> list[str]:
    """Every method, by module name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in HELPERS)


def load(name: str) -> ModuleType:
    """The module of a method or of a variant.

    Raises:
        UserError: for an unknown name, with the closest known one.
    """
    module = module_of(name)
    if module not in names():
        raise UserError(
            f"unknown method {module!r}; {suggest(module, names())}",
            where="params.yaml: methods",
            fix="docs/methods.md lists the methods and shows how to add one",
        )
    return importlib.import_module(f"causalroute.methods.{module}")


def editor_of(name: str, dataset_editor: str) -> str | None:
    """The editor whose counterfactuals a method trains on; None when it needs none."""
    wanted = load(name).EDITOR
    return dataset_editor if wanted == "dataset" else wanted


def reads(name: str) -> str:
    """What a method reads besides the features of whole sides, from its module's `READS`: "posts", "tokens", "rewrites", or nothing (empty)."""
    return str(getattr(load(name), "READS", ""))


def with_reader(name: str, posts: Posts, origin: Origin) -> Posts:
    """The posts as a method wants them: with what its module's `open_posts` gives, where it `READS` more than features."""
    return replace(posts, reader=load(name).open_posts(posts.ids, origin)) if reads(name) else posts


def further_files(name: str, origin: Origin) -> list[Path]:
    """Files that such a method's training depends on, beside those of the features."""
    if reads(name) == "tokens":
        return [layout.tokens(origin.dataset, origin.name, views) for views in ("factual", origin.editor)]
    found = {"posts": layout.reference_image, "rewrites": layout.rewrites}.get(reads(name))
    return [found(origin.dataset)] if found else []


def settings_of(name: str, values: dict[str, Any]) -> Any:
    """A method's `Settings` from its mapping in params.yaml.

    Raises:
        UserError: for an unknown or ill-typed key.
    """
    return parse(load(name).Settings, canonical_json(values), where=f"params.yaml: methods.{name}")


def candidates(name: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """What a search tries: the settings as they are, then every other combination of the module's `SEARCH`.

    Args:
        name: a method or a variant.
        values: its mapping in params.yaml; what stands there is not searched.

    Returns:
        The values of the searched settings, one mapping per candidate; a single empty one where nothing is searched.

    Raises:
        UserError: the module searches unknown settings, or offers more than `CANDIDATES`.
    """
    module = load(name)
    options = {key: tried for key, tried in getattr(module, "SEARCH", {}).items() if key not in values}
    combinations = [{}, *(dict(zip(options, combination, strict=True)) for combination in itertools.product(*options.values()))]
    tried = [asdict(settings_of(name, values | combination)) for combination in combinations]
    found = {canonical_json(one): one for one in ({key: settings[key] for key in options} for settings in tried)}
    if len(found) > CANDIDATES:
        raise UserError(
            f"{module_of(name)} offers {len(found)} candidates to the search, its default included; every method has {CANDIDATES} at most",
            where=f"causalroute/methods/{module_of(name)}.py: SEARCH",
            fix="name fewer values",
        )
    return list(found.values())
