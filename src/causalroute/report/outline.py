"""JSON of an earlier stage -> short lists and tables for the page, whatever keys it has: nothing a stage reports is left out in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROWS = 12
"""Rows of a table shown; the rest is counted."""
DEPTH = 3
"""Mappings nested deeper are printed as one line."""


@dataclass(frozen=True)
class Block:
    """A heading over a table; `more` rows are left out."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0


def plain(value: Any) -> str:
    """A JSON value as a reader writes it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if value in ({}, [], ""):
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(plain(inner) for inner in value)
    return str(value)


def words(key: str) -> str:
    """`near_duplicates` -> `near duplicates`."""
    return key.replace("_", " ")


def outline(value: Mapping[str, Any], title: str = "", depth: int = DEPTH) -> list[Block]:
    """Scalars of a mapping become one table of facts; lists of mappings and mappings of mappings become tables; the rest is nested below."""
    facts, deeper = [], []
    for key, inner in value.items():
        name = f"{title}: {words(key)}" if title else words(key)
        if _records(inner):
            deeper.append(_table(name, inner))
        elif isinstance(inner, Mapping) and inner and depth > 1 and any(isinstance(v, Mapping | list) for v in inner.values()):
            deeper += [_table(name, [{"": k, **v} for k, v in inner.items()])] if _flat(inner) else outline(inner, name, depth - 1)
        else:
            facts.append((words(key), plain(inner)))
    head = [Block(title, (), tuple(facts))] if facts else []
    return [*head, *deeper]


def _records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _flat(value: Mapping[str, Any]) -> bool:
    """A mapping of mappings that share their keys and hold no further ones: the rows of a table."""
    inner = list(value.values())
    if not all(isinstance(row, Mapping) for row in inner):
        return False
    return all(set(row) & set(inner[0]) and not any(isinstance(v, Mapping | list) for v in row.values()) for row in inner)


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Block:
    header = tuple(dict.fromkeys(key for row in rows for key in row))
    shown = tuple(tuple(plain(row[key]) if key in row else "" for key in header) for row in rows[:ROWS])
    return Block(title, tuple(words(key) for key in header), shown, max(0, len(rows) - ROWS))
