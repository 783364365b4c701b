"""One module per file layout; each has `read(root, dataset) -> Records`."""

from __future__ import annotations

from pathlib import Path

from causalroute.config import Dataset
from causalroute.data.formats import mmsd, mvsa, planted, table
from causalroute.data.records import Records

READERS = {"mvsa": mvsa.read, "mmsd": mmsd.read, "table": table.read, "planted": planted.read}


def read(root: Path, dataset: Dataset) -> Records:
    """Reads the raw folder `root` with the module named by `dataset.format`."""
    return READERS[dataset.format](root, dataset)
