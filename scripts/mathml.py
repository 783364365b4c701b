"""Formulas of the documentation as MathML, which browsers draw by themselves: the site loads no script for them, and GitHub reads the TeX as it is.

A small part of TeX: letters, numbers, _ and ^, braces, the commands below. What is outside of it stays TeX, in a code element.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

SYMBOLS = {
    **{"pm": "±", "cdot": "·", "times": "×", "le": "≤", "ge": "≥", "ne": "≠", "approx": "≈", "to": "→", "mid": "|", "infty": "∞", "sum": "∑", "prod": "∏"},
    **{
        "alpha": "α",
        "beta": "β",
        "nu": "ν",
        "rho": "ρ",
        "sigma": "σ",
        "tau": "τ",
        "delta": "δ",
        "Delta": "Δ",
        "mu": "μ",
        "lambda": "λ",
        "theta": "θ",
        "pi": "π",
    },
    **{"log": "log", "exp": "exp", "max": "max", "min": "min", "ldots": "…", "dots": "…", "{": "{", "}": "}", "%": "%"},
}
SPACES = {"quad": "1em", ";": ".28em", ",": ".17em", ":": ".22em", " ": ".25em", "!": "0"}
ACCENTS = {"widehat": "^", "hat": "^", "bar": "‾", "overline": "‾", "tilde": "~"}
TOKEN = re.compile(r"\\([A-Za-z]+|.)|([0-9]+(?:\.[0-9]+)?)|([A-Za-z])|(\s+)|(.)", re.DOTALL)
BETWEEN_CODE = re.compile(r"(^(?:```|~~~).*?^(?:```|~~~)[ ]*$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|(?<![\w$\\])\$(?P<inline>[^\s$](?:[^$\n]*[^\s$])?)\$(?![\w$])", re.DOTALL)


def convert(markdown: str) -> str:
    """A page with its `$...$` and `$$...$$` as MathML; code is left alone."""
    parts = BETWEEN_CODE.split(markdown)
    return "".join(part if index % 2 else FORMULA.sub(_element, part) for index, part in enumerate(parts))


def _element(match: re.Match[str]) -> str:
    block = match["block"] is not None
    try:
        inner = math(match["block"] if block else match["inline"])
    except ValueError:
        return f"`{match[0]}`"
    if not block:
        return f"<math><mrow>{inner}</mrow></math>"
    return f'\n\n<div><math display="block"><mrow>{inner}</mrow></math></div>\n\n'


def math(tex: str) -> str:
    """MathML of a formula.

    Raises:
        ValueError: it is not in the part of TeX that is known here.
    """
    tokens = [match for match in TOKEN.finditer(tex) if not match[4]]
    rest = iter([*tokens, None])
    out, end = _row(rest)
    if end is not None:
        raise ValueError("a brace too many")
    return out


def _row(tokens: Iterator[re.Match[str] | None]) -> tuple[str, re.Match[str] | None]:
    """Atoms up to a closing brace or the end, with their indices; and what ended them."""
    atoms: list[list[str]] = []
    for token in tokens:
        if token is None or token[5] == "}":
            return "".join(_scripted(*atom) for atom in atoms), token
        if token[5] in ("_", "^") and token[1] is None:
            if not atoms or atoms[-1][1 if token[5] == "_" else 2]:
                raise ValueError("an index of nothing")
            atoms[-1][1 if token[5] == "_" else 2] = _argument(tokens)
        else:
            atoms.append([_atom(token, tokens), "", ""])
    raise ValueError("a brace is not closed")


def _scripted(base: str, below: str, above: str) -> str:
    if below and above:
        return f"<msubsup>{base}{below}{above}</msubsup>"
    if below or above:
        name = "msub" if below else "msup"
        return f"<{name}>{base}{below or above}</{name}>"
    return base


def _argument(tokens: Iterator[re.Match[str] | None]) -> str:
    token = next(tokens)
    if token is None:
        raise ValueError("an argument is missing")
    return _atom(token, tokens)


def _atom(token: re.Match[str], tokens: Iterator[re.Match[str] | None]) -> str:
    if token[2] or token[3]:
        return f"<mn>{token[2]}</mn>" if token[2] else f"<mi>{token[3]}</mi>"
    if token[5]:
        if token[5] != "{":
            return f'<mo stretchy="false">{escape(token[5].replace("-", "−"))}</mo>'
        inner, end = _row(tokens)
        if end is None:
            raise ValueError("a brace is not closed")
        return f"<mrow>{inner}</mrow>"
    return _command(token[1], tokens)


def _command(name: str, tokens: Iterator[re.Match[str] | None]) -> str:
    if name in SPACES:
        return f'<mspace width="{SPACES[name]}"></mspace>'
    if name in SYMBOLS:
        return f"<mi>{SYMBOLS[name]}</mi>" if SYMBOLS[name].isalpha() else f"<mo>{escape(SYMBOLS[name])}</mo>"
    if name in ("left", "right", "Bigl", "Bigr", "bigl", "bigr"):
        return _argument(tokens)
    if name in ACCENTS:
        return f'<mover accent="true">{_argument(tokens)}<mo>{ACCENTS[name]}</mo></mover>'
    if name in ("frac", "tfrac", "dfrac"):
        return f"<mfrac>{_argument(tokens)}{_argument(tokens)}</mfrac>"
    if name == "sqrt":
        return f"<msqrt>{_argument(tokens)}</msqrt>"
    if name in ("mathrm", "text", "operatorname"):
        letters = re.sub("<[^>]*>", "", _argument(tokens))
        return f'<mi mathvariant="normal">{letters}</mi>'
    raise ValueError(f"\\{name}")
