"""The report of a project folder or checkout, written anew by the workflow where something changed; nothing else of the run is done."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from causalroute import layout
from causalroute.errors import UserError
from causalroute.parsing import suggest
from causalroute.project import params
from causalroute.project.run import Lines, run


@dataclasses.dataclass(frozen=True)
class Renewed:
    """One report."""

    folder: Path
    dataset: str
    page: Path
    changed: bool
    """whether it was written anew"""


def renew(folder: Path, dataset: str = "", *, lines: Lines | None = None) -> list[Renewed]:
    """Runs the report rule alone for one data set, or for those of the run.

    Args:
        folder: project folder or checkout.
        dataset: a key of its `datasets` (empty: all of `run`).
        lines: where to tell (None: standard error).

    Raises:
        UserError: no project, no such data set, or its run is not finished.
    """
    config = params.read(folder)
    if dataset and dataset not in config.datasets:
        raise UserError(f"there is no data set {dataset!r}", where=str(folder / "params.yaml"), fix=suggest(dataset, config.datasets))
    names = [dataset] if dataset else list(config.run)
    pages = {name: layout.reports(name) / "report.html" for name in names}
    watch = run(folder, 1, more=[*map(str, pages.values()), "--allowed-rules", "report"], lines=lines)
    return [Renewed(folder, name, folder / page, not watch.nothing) for name, page in pages.items()]
