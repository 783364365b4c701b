"""Limits for continuous integration: the audit as a check that fails when the data gives away more than is allowed.

shortcuts   number of shortcuts listed or counted
explains    largest share of the label's entropy that one shortcut explains alone
joint       share of the label's entropy that all shortcuts explain together (cross-fitted)
effect      largest log-odds of a present/absent shortcut
auc         largest AUC of a number (0.5 says nothing), its lower side mirrored
surface     accuracy of the surface probe above the majority share
missing     the same of "has image"
leaks       test posts with an exact twin (text or image) in train or valid
near_leaks  test posts with only a near twin there
conflicts   posts with an exact twin of another label
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from causalroute.config import suggest
from causalroute.errors import UserError

Found = Mapping[str, Any]


def _largest(found: Found, measure: Callable[[Mapping[str, Any]], float | None]) -> float:
    return max((value for cue in found["shortcuts"] if (value := measure(cue)) is not None), default=0.0)


def _lift(found: Found, probe: str) -> float:
    one = found["probes"].get(probe)
    return one["accuracy"] - one["majority"] if one else 0.0


def _sum(found: Found, prefix: str) -> float:
    return float(sum(found["leaks"].get(f"{prefix}_{side}") or 0 for side in ("text", "image")))


MEASURES: dict[str, Callable[[Found], float]] = {
    "shortcuts": lambda found: float(found["found"]["shortcuts"]),
    "explains": lambda found: _largest(found, lambda cue: cue["explains"]),
    "joint": lambda found: max(0.0, found["joint"]["explained"]),
    "effect": lambda found: _largest(found, lambda cue: abs(cue["log_odds"]) if "log_odds" in cue else None),
    "auc": lambda found: _largest(found, lambda cue: max(cue["auc"], 1 - cue["auc"]) if "auc" in cue else None),
    "surface": lambda found: _lift(found, "surface"),
    "missing": lambda found: _lift(found, "has image"),
    "leaks": lambda found: _sum(found, "exact"),
    "near_leaks": lambda found: _sum(found, "near"),
    "conflicts": lambda found: _sum(found, "conflicts"),
}
"""What can be limited."""


def parse_limits(limits: Sequence[str]) -> dict[str, float]:
    """`joint=0.05` -> {"joint": 0.05}.

    Raises:
        UserError: an unknown measure, or no number.
    """
    found = {}
    for limit in limits:
        name, _, value = limit.partition("=")
        if name not in MEASURES:
            raise UserError(f"--fail-on {limit!r}: no such measure", fix=suggest(name, MEASURES))
        try:
            found[name] = float(value)
        except ValueError:
            raise UserError(f"--fail-on {limit!r}: {value!r} is no number", fix=f"for example --fail-on {name}=0.05") from None
    return found


def exceeded(found: Found, limits: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Each limit that is exceeded: (value found, limit)."""
    values = {name: MEASURES[name](found) for name in limits}
    return {name: (value, limits[name]) for name, value in values.items() if value > limits[name]}
