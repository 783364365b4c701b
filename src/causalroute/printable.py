"""Words of the data on a terminal: they are anybody's, and control and direction characters could rewrite it."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` on one line, each character that does not print as U+FFFD."""
    return "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in " ".join(text.split()))
