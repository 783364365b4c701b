"""Text between marks of a Markdown file, written by a benchmark:

    <!-- KIND: NAME -->
    whatever was here
    <!-- end -->

KIND is "measured" or "predicted".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def mark(kind: str, name: str) -> re.Pattern[str]:
    """A block with its marks."""
    return re.compile(rf"(<!-- {kind}: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(body: str, found: re.Match[str]) -> str:
    """The marks with other text between them."""
    return f"{found[1]}{body.rstrip()}\n{found[2]}"


def require(path: Path, kind: str, names: Iterable[str]) -> None:
    """Fails where a block is missing."""
    text = path.read_text(encoding="utf-8")
    missing = [name for name in names if not mark(kind, name).search(text)]
    if missing:
        raise ValueError(f"{path} has no block for {', '.join(missing)}: add the lines <!-- {kind}: {missing[0]} --> and <!-- end -->")


def rewritten(text: str, kind: str, bodies: Mapping[str, str]) -> str:
    """The text with other blocks."""
    for name, body in bodies.items():
        text = mark(kind, name).sub(functools.partial(filled, body), text)
    return text


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(line)} |" for line in lines)])
