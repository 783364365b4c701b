"""What a check found, and the two ways to print it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from causalroute import __version__
from causalroute.printable import printable

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    check: str
    """what was looked at"""
    status: Status
    """ok; warning: works, but not as well as it could; problem: something will fail"""
    what: str
    """what was found"""
    fix: str = ""
    """what to do about it"""


def attempt(check: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of `look`; what it raises becomes a finding of its own, for an environment that is broken enough breaks its checks too."""
    try:
        return list(look())
    except Exception as error:
        return [Finding(check, "problem", f"cannot be looked at: {type(error).__name__}: {error}", "mend the other problems first, then ask again")]


def as_text(findings: Sequence[Finding]) -> str:
    """One line a check, and below it the fix where there is one; a count at the end."""
    lines = []
    for one in findings:
        lines.append(f"{one.status:<8} {one.check:<16} {printable(one.what)}")
        if one.fix:
            lines.append(f"{'':<25} fix: {printable(one.fix)}")
    problems, warnings = (sum(one.status == status for one in findings) for status in ("problem", "warning"))
    return "\n".join([*lines, f"{len(findings)} checks, {warnings} warnings, {problems} problems"]) + "\n"


def as_json(findings: Sequence[Finding]) -> str:
    """One object, on one line: version, findings, and how many are bad."""
    counts = {f"{status}s": sum(one.status == status for one in findings) for status in ("problem", "warning")}
    return json.dumps({"version": __version__, "findings": [asdict(one) for one in findings], **counts}, ensure_ascii=True, sort_keys=True) + "\n"
