"""Pieces of a section: sentences, tables, and words that stand as code in Markdown and HTML alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

ROWS = 15
"""Rows of a table shown; the rest is counted."""


@dataclass(frozen=True)
class Table:
    """A caption over a table; columns named in `left` hold words; `more` rows are left out."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    left: tuple[str, ...] = ()
    more: int = 0


@dataclass(frozen=True)
class Section:
    """Sentences first, then open tables, then folded ones."""

    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()


def code(word: str) -> str:
    """A name or a word of the data as code: backquotes delimit it, so it may not hold any."""
    return "`" + " ".join(word.replace("`", "'").split()) + "`"


def spans(sentence: str) -> list[tuple[bool, str]]:
    """(is code, text) pieces of a sentence."""
    return [(i % 2 == 1, part) for i, part in enumerate(sentence.split("`")) if part]


def percent(value: float) -> str:
    """A fraction in percent with one decimal, never "-0.0"."""
    return f"{round(100 * value, 1) + 0.0:.1f}"


def signed(value: float) -> str:
    """A difference of fractions in points, with its sign; never "-0.0"."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def share(value: float | None) -> str:
    """A fraction as whole percent, "–" where unknown."""
    return "–" if value is None else f"{round(100 * value) + 0:d} %"


def number(value: int) -> str:
    """A count with thousands set apart."""
    return f"{value:,}"


def cut(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "", left: Sequence[str] = ()) -> Table:
    """A table of at most ROWS rows that says how many it leaves out."""
    return Table(title, tuple(header), tuple(tuple(row) for row in rows[:ROWS]), note, tuple(left), max(0, len(rows) - ROWS))


def counted(found: Mapping[str, Any]) -> str:
    """{"no image": 3, "no text": 1} -> "3 no image, 1 no text"."""
    return ", ".join(f"{number(count)} {reason.replace('_', ' ')}" for reason, count in found.items() if count)


def visible(text: str) -> str:
    """Control characters as their pictures or code points, for they are invisible, end lines, or turn the direction of what follows."""
    return text if text.isascii() and text.isprintable() else "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character.isspace():
        return " "
    if unicodedata.category(character) == "Cf" and character != "\u200d":  # the joiner makes one emoji of several
        return f"⟨{ord(character):04X}⟩"
    return "�" if unicodedata.category(character) in ("Cc", "Cs") else character


def finalized(value: Any) -> Any:
    """What a template prints of a value: words of the data with every control character visible."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
