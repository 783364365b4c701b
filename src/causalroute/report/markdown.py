"""results.md: what a pull request shows, as GitHub renders it: three sentences, one narrow table, what is needed to read it."""

from __future__ import annotations

from collections.abc import Sequence

from causalroute.report.blocks import code, spans
from causalroute.report.headline import Cell, Column, Line

HEADINGS = {"baseline": "baselines", "method": "methods", "oracle": "oracle"}


def escape(text: str) -> str:
    """Text that cannot break a Markdown table or start markup."""
    plain = " ".join(text.split()).replace("\\", "\\\\")
    for character in "|<>`*_[]":
        plain = plain.replace(character, f"\\{character}")
    return plain


def sentence(text: str) -> str:
    """One line of escaped text around code spans; a pipe inside code would still end a table cell, so sentences stay out of tables."""
    line = " ".join(text.splitlines())  # every separator Unicode knows, in code spans too
    return "".join(f"`{part}`" if is_code else escape(f"x{part}x")[1:-1] for is_code, part in spans(line)).strip()


def _cell(cell: Cell | None) -> str:
    return "–" if cell is None else f"{cell.mean} [{cell.interval}] {cell.sign}".rstrip()


def _name(line: Line) -> str:
    note = line.name.removeprefix(line.method)
    return code(line.method).replace("|", "") + escape(f"x{note}")[1:]


def table(columns: Sequence[Column], lines: Sequence[Line]) -> str:
    """A pipe table of the short columns with one heading row for each kind of method."""
    shown = [i for i, column in enumerate(columns) if column.short]
    rows = [["method", *(escape(columns[i].title) for i in shown), "parameters"], ["---", *(["---:"] * (len(shown) + 1))]]
    last = ""
    for line in lines:
        if line.kind != last:
            rows.append([f"*{HEADINGS[line.kind]}*", *([""] * (len(shown) + 1))])
            last = line.kind
        rows.append([_name(line), *(_cell(line.cells[i]) for i in shown), line.parameters])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def document(
    title: str, facts: Sequence[tuple[str, str]], claims: Sequence[str], columns: Sequence[Column], lines: Sequence[Line], notes: Sequence[str]
) -> str:
    """The whole file."""
    known = "; ".join(f"{escape(key)}: {escape(value)}" for key, value in facts)
    parts = [f"# {escape(title)}", "\n".join(f"- {sentence(claim)}" for claim in claims), table(columns, lines), "\n".join(f"- {sentence(n)}" for n in notes)]
    return "\n\n".join([part for part in parts if part] + [f"{known}. Figures, groups, audit and every metric: `report.html`."]) + "\n"
