"""The built-in generator as a source."""

from __future__ import annotations

from pathlib import Path

from causalroute.config import Dataset, Source


def materialise(source: Source, dataset: Dataset, target: Path) -> None:
    """Generates posts.parquet and images into `target`."""
    from causalroute.data.planted import generate

    generate(dataset.planted, dataset.task, target)
