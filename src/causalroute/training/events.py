"""TensorBoard events of one seed, written while it trains."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any


class Events:
    """Writes each row of the history under its epoch.

    Args:
        path: folder of the seed.
        resume_at: epochs kept from a killed run; None starts the folder anew.
    """

    def __init__(self, path: Path, resume_at: int | None) -> None:
        if resume_at is None:
            shutil.rmtree(path, ignore_errors=True)
        self.path, self.resume_at = path, resume_at

    def __enter__(self) -> Events:
        """Opens the event file."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.path), purge_step=None if self.resume_at is None else self.resume_at + 1)
        return self

    def write(self, row: dict[str, Any]) -> None:
        """Adds the numbers of one epoch."""
        for name, value in row.items():
            if name not in ("epoch", "seed"):
                self.writer.add_scalar(name, value, row["epoch"])

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Closes the event file."""
        self.writer.close()
