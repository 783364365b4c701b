"""Turns JSON into frozen dataclasses; an unknown, missing or ill-typed key is told with its place and the closest known one."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, TypeAdapter, ValidationError

from causalroute.errors import UserError

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


@dataclass_transform(frozen_default=True, kw_only_default=True)
@dataclass_transform(kw_only_default=True, frozen_default=True)
def section(cls: type[T]) -> type[T]:
    """Makes `cls` a frozen, keyword-only dataclass that refuses unknown keys and silent type changes."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    cls.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
    return cls


def suggest(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose from {known}"


def parse(cls: type[T], text: str, *, where: str = "params.yaml") -> T:
    """Builds a section from JSON.

    Raises:
        UserError: names each unknown, missing or ill-typed key and how to mend it.
    """
    try:
        return TypeAdapter(cls).validate_json(text)
    except ValidationError as error:
        raise UserError(
            "\n".join(_explain(cls, e) for e in error.errors()), where=where, fix="correct the keys named above; docs/params.md lists all of them"
        ) from None


def _explain(cls: type, error: Any) -> str:
    path = [str(part) for part in error["loc"]]
    key = ".".join(path) or cls.__name__
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{key}: unknown key; {suggest(path[-1], _fields_at(cls, path[:-1]))}"
    if error["type"].startswith("missing"):
        return f"{key}: missing"
    found = "" if isinstance(error["input"], dict | list) else f" (found {error['input']!r})"
    message = error["msg"].removeprefix("Value error, ")
    return (f"{key}: {message}{found}" if path else f"{message}{found}")[:400]


def _fields_at(cls: Any, path: list[str]) -> list[str]:
    """Names of the fields of the section at `path`, for a hint."""
    schema = TypeAdapter(cls).json_schema()
    node: Any = schema
    for part in [*path, ""]:
        node = _resolve(node, schema)
        if part:
            node = node.get("properties", {}).get(part) or node.get("additionalProperties") or node.get("items") or {}
    return list(node.get("properties", {})) if isinstance(node, dict) else []


def _resolve(node: Any, schema: Any) -> Any:
    for option in node.get("anyOf", []):
        if "$ref" in option:
            node = option
    reference = node.get("$ref", "").rpartition("/")[2]
    return schema["$defs"][reference] if reference else node
