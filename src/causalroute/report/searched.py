"""What the search of settings chose for each method, as a note under the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from causalroute import io, layout
from causalroute.errors import UserError
from causalroute.report.blocks import code


def notes(name: str, methods: Sequence[str]) -> list[str]:
    """One note on the budget and one on the settings of `methods`; none where no search was made.

    Raises:
        UserError: a search is missing.
    """
    records = {method: _read(name, method) for method in methods}
    if not records:
        return []
    first = next(iter(records.values()))
    budget = f"{len(first['seeds'])} seeds that the table does not use, {first['train']['epochs']} epochs, {_most(records)} candidates at most"
    chosen = "; ".join(f"{code(method)} {values(found)}" for method, found in records.items())
    return [
        f"Settings were searched for {len(records)} of the methods with one budget ({budget}), on validation posts and their accepted swaps alone; "
        f"every method was judged alike. Chosen: {chosen}."
    ]


def _read(name: str, method: str) -> dict[str, Any]:
    path = layout.search(name, method)
    if not path.is_file():
        raise UserError("the search of a method's settings is missing", where=str(path), fix="run the workflow again: its search rule writes this file")
    found: dict[str, Any] = io.read_json(path)
    return found


def _most(records: Mapping[str, Mapping[str, Any]]) -> int:
    return max(len(found["candidates"]) for found in records.values())


def values(found: Mapping[str, Any]) -> str:
    """`alpha` = 0.3 (default 1.0), from one search.json, whose first candidate is the settings as they were."""
    default, chosen = found["candidates"][0]["settings"], found["chosen"]
    return ", ".join(f"{code(key)} = {show(value)} ({_against(value, default[key])})" for key, value in chosen.items())


def _against(value: Any, default: Any) -> str:
    return "the default" if value == default else f"default {show(default)}"


def show(value: Any) -> str:
    """A setting as in params.yaml."""
    return value if isinstance(value, str) else io.canonical_json(value)
