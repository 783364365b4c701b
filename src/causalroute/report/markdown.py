"""results.md: the headline table as GitHub shows it."""

from __future__ import annotations

from collections.abc import Sequence

from causalroute.evaluation.scoring import REFERENCE
from causalroute.report.headline import Cell, Column, Finding, Line

HEADINGS = {"baseline": "baselines", "method": "methods", "oracle": "oracle"}


def escape(text: str) -> str:
    """Text that cannot break a Markdown table or start markup."""
    plain = " ".join(text.split()).replace("\\", "\\\\")
    for character in "|<>`*_[]":
        plain = plain.replace(character, f"\\{character}")
    return plain


def _cell(cell: Cell | None) -> str:
    return "–" if cell is None else f"{cell.mean} [{cell.interval}] {cell.sign}".rstrip()


def table(columns: Sequence[Column], lines: Sequence[Line]) -> str:
    """A pipe table with one heading row for each kind of method."""
    rows = [["method", *(escape(column.title) for column in columns)], ["---", *(["---:"] * len(columns))]]
    last = ""
    for line in lines:
        if line.kind != last:
            rows.append([f"*{HEADINGS[line.kind]}*", *([""] * len(columns))])
            last = line.kind
        rows.append([escape(line.name), *(_cell(cell) for cell in line.cells)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _finding(finding: Finding) -> str:
    text = f"against {REFERENCE}, points: better {finding.better}; no measurable difference {finding.same}; worse {finding.worse}."
    return f"- **{finding.split} accuracy** {escape(text)}"


def document(title: str, facts: Sequence[str], columns: Sequence[Column], lines: Sequence[Line], findings: Sequence[Finding], notes: Sequence[str]) -> str:
    """The whole file."""
    parts = [f"# {escape(title)}", "\n".join(f"- {escape(fact)}" for fact in facts), table(columns, lines)]
    if findings:
        parts += ["\n".join(_finding(finding) for finding in findings)]
    return "\n\n".join([*parts, *(escape(note) for note in notes)]) + "\n"
