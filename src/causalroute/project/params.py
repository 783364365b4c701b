"""params.yaml of a project: written for a reader, and never over a user's edits."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml

from causalroute import schema
from causalroute.config import Config
from causalroute.errors import UserError
from causalroute.io import read_json, sha256_bytes, write_json, write_text
from causalroute.project.settings import checked

HEAD = """\
# The settings of this project, written by `causalroute train`. Change what you like and run the same command again (or
# `causalroute train ... --force` to have this file written anew): only what depends on the change is done again.
# docs/params.md explains every key; `snakemake` runs in this folder as in a checkout, so that it can grow into a full study.
"""
COMMENTS = {
    "run": "data sets of this run: keys of `datasets`",
    "replicates": "training seeds of every method, and how many of them share a job: the intervals of the report are over seeds and posts",
    "train": "one budget for every method: passes over the train posts, posts a step, AdamW, units and dropout of the joint encoder",
    "methods": "settings of each method; {} takes the defaults (docs/methods.md). A method is trained where the data set below names it",
    "editors": "how counterfactuals are made: `swaps` contexts exchanged per post and side; the data set below names one",
    "audit": "search for shortcuts: error rate over all tests, how it is held, posts that must hold a cue",
    "gate": "what counterfactuals must pass before a method trains on them",
    "evaluate": "confidence of every interval, resamples of the bootstrap",
    "datasets": "the table: where it is, what its columns hold, how it is divided, what is made of it",
    "backbones": "the frozen encoder of texts and images",
}
KEYS = {
    "sources": "the table and the images of its column `images`, relative to `root` (left out: the table's folder)",
    "columns": "'' means there is none; `groups`: columns that the audit tests and the report tells accuracies by",
    "splits": "shares of posts, where no column says the split; ood: test posts whose words say nothing of their label, where enough can be chosen",
    "editor": "its counterfactuals are trained on; `estimated` makes two swaps a side instead of one: half as much encoding again",
    "held_out": "an editor whose swaps are a test alone, such as `rules`: as much encoding again",
    "methods": "rows of the result table, in this order",
}
RECORD = ".causalroute.json"
Outcome = Literal["written", "same", "kept"]


def text_of(values: dict[str, Any]) -> str:
    """The file: every section with a line that says what it is for."""
    parts = [HEAD]
    for key, value in values.items():
        comment = f"# {COMMENTS[key]}\n" if key in COMMENTS else ""
        if isinstance(value, dict) and value and all(isinstance(entry, dict) for entry in value.values()):
            entries = "".join(_entry(name, entry, key) for name, entry in value.items())
            parts.append(f"{comment}{key}:\n{entries}")
        else:
            parts.append(f"{comment}{key}: {_flow(value)}\n")
    return "\n".join(parts)


def _entry(name: str, entry: dict[str, Any], section: str) -> str:
    if section != "datasets":
        return f"  {_flow(name)}: {_flow(entry)}\n"
    lines = [f"  {_flow(name)}:"]
    for key, value in entry.items():
        lines += [f"    # {KEYS[key]}"] if key in KEYS else []
        lines.append(f"    {_flow(key)}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True).strip().removesuffix("\n...").strip()


def settle(folder: Path, text: str, *, force: bool = False) -> Outcome:
    """Brings `text` into the project's params.yaml, unless a user's edits stand in the way.

    An edited file is kept as long as the same call comes again; a call that asks for something else than the last one is refused.

    Raises:
        UserError: the folder holds other things than a project, or edits would be lost.
    """
    path, known = folder / "params.yaml", record(folder).get("params")
    if not path.exists():
        check_folder(folder)
        return _write(folder, text)
    here = path.read_text(encoding="utf-8")
    if here == text:
        note(folder, params=_digest(text))
        return "same"
    if _digest(here) != known and not force:
        if known == _digest(text):
            return "kept"
        fix = "make the change in params.yaml itself and repeat the last call, or write the file anew with --force (what is there is kept as params.yaml.old)"
        raise UserError(f"params.yaml has edits that this call would undo:\n{_difference(here, text)}", where=str(path), fix=fix)
    if _digest(here) != known:
        write_text(path.with_name("params.yaml.old"), here)
    return _write(folder, text)


def check_folder(folder: Path) -> None:
    """Refuses a folder that holds other things than a project.

    Raises:
        UserError: it does.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError("the project folder is a file", where=str(folder), fix="name another with --output-dir")
    if folder.exists() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        raise UserError("the folder holds something else than a project", where=str(folder), fix="name a new or an empty one with --output-dir")


def _write(folder: Path, text: str) -> Outcome:
    write_text(folder / "params.yaml", text)
    note(folder, params=_digest(text))
    return "written"


def _difference(here: str, text: str) -> str:
    lines = [line for line in difflib.unified_diff(here.splitlines(), text.splitlines(), lineterm="", n=0) if not line.startswith(("---", "+++", "@@"))]
    return "\n".join([f"    {line[:150]}" for line in lines[:12]] + ([f"    ... and {len(lines) - 12} more lines"] if len(lines) > 12 else []))


def _digest(text: str) -> str:
    return sha256_bytes(text.encode())


def record(folder: Path) -> dict[str, Any]:
    """What the command remembers of a project: `params`, the digest of the params.yaml it wrote; `model`, that of what the saved model was made from."""
    path = folder / RECORD
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    return found


def note(folder: Path, **values: str) -> None:
    """Adds to `record`."""
    if (merged := record(folder) | values) != record(folder):
        write_json(folder / RECORD, merged)


def read(folder: Path) -> Config:
    """The settings in a folder's params.yaml.

    Raises:
        UserError: there are none, or they are wrong.
    """
    path = folder / "params.yaml"
    if not path.is_file():
        raise UserError("the folder is no project: params.yaml is missing", where=str(folder), fix="name the folder that `causalroute train` wrote")
    return checked(schema.read(path), str(path))
