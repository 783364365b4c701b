"""Progress on standard error: a bar on a terminal, else a line every ten seconds with rate and time left."""

from __future__ import annotations

import sys
import time

PERIOD = 10.0
"""Seconds between two lines."""


class Progress:
    """Counts inputs done.

    Args:
        total: inputs to do.
        label: what they are.
    """

    def __init__(self, total: int, label: str) -> None:
        self.total, self.label, self.done = total, label, 0
        self.start = self.told = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, desc=label, unit="input")

    def update(self, count: int) -> None:
        """Adds `count` finished inputs."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif time.monotonic() - self.told >= PERIOD:
            self.told = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """Done, rate and time left in one line."""
        rate = self.done / max(time.monotonic() - self.start, 1e-9)
        return f"{self.label}: {self.done}/{self.total}, {rate:.1f}/s, {(self.total - self.done) / max(rate, 1e-9):.0f} s left"

    def close(self) -> None:
        """Ends the bar, or tells the total."""
        if self.bar is not None:
            self.bar.close()
        else:
            print(self.line(), file=sys.stderr, flush=True)
