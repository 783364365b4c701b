"""results.tex: the headline table for a paper, the same cells as results.md; to be read with `input`, it needs booktabs, graphicx and textcomp."""

from __future__ import annotations

from collections.abc import Sequence

from causalroute.report.blocks import spans, visible
from causalroute.report.headline import Cell, Column, Line
from causalroute.report.markdown import HEADINGS

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedblright{}", "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}", "–": "--", "▲": r"$\blacktriangle$", "▼": r"$\blacktriangledown$", "[": "{[}", "]": "{]}",
}  # fmt: skip
SIGNS = {"better": r"$^{\uparrow}$", "worse": r"$^{\downarrow}$", "same": "$^{=}$", "": ""}
READ = r"$^{\uparrow}$ better, $^{\downarrow}$ worse, $^{=}$ not measurably different from the reference; in brackets the interval; percent."


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(SPECIAL.get(character, character) for character in " ".join(visible(text).split()))


def sentence(text: str) -> str:
    """Escaped text with code in typewriter type."""
    return "".join(rf"\texttt{{{escape(part)}}}" if is_code else escape(f"x{part}x")[1:-1] for is_code, part in spans(text)).strip()


def _cell(cell: Cell | None) -> str:
    return "--" if cell is None else rf"{cell.mean}{SIGNS[cell.verdict]} {{\scriptsize [{cell.interval}]}}"


def table(title: str, label: str, columns: Sequence[Column], lines: Sequence[Line], claims: Sequence[str]) -> str:
    """The file.

    Args:
        title: the data set and its task.
        label: for `\\ref`: letters, digits and hyphens of it are kept.
        columns: those that are `short` are shown.
        lines: one per method, in order of their kinds.
        claims: sentences of the caption.
    """
    shown = [i for i, column in enumerate(columns) if column.short]
    rows = [[r"\textbf{method}", *(rf"\textbf{{{escape(columns[i].title)}}}" for i in shown), r"\textbf{parameters}"]]
    body = [_row(rows[0]), r"\midrule"]
    last = ""
    for line in lines:
        if line.kind != last:
            body += [r"\addlinespace"] * bool(last) + [rf"\multicolumn{{{len(shown) + 2}}}{{l}}{{\emph{{{HEADINGS[line.kind]}}}}} \\"]
            last = line.kind
        note = line.name.removeprefix(line.method)
        name = rf"\texttt{{{escape(line.method)}}}" + escape(f"x{note}")[1:]
        body.append(_row([name, *(_cell(line.cells[i]) for i in shown), escape(line.parameters)]))
    caption = " ".join([f"{escape(title)}.", *map(sentence, claims), READ])
    key = "".join(c if c.isascii() and c.isalnum() else "-" for c in label)
    return "\n".join(
        [
            "% needs \\usepackage{booktabs,graphicx,textcomp}; the same numbers as results.md",
            r"\begin{table*}", r"\centering", rf"\caption{{{caption}}}", rf"\label{{tab:{key}}}", r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(shown) + 1)}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}}", r"\end{table*}", "",
        ]
    )  # fmt: skip


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
