"""The three sentences a reader needs, made from the results of whatever data set was run; and the table behind the last one."""

from __future__ import annotations

from collections.abc import Sequence

from causalroute.config import Evaluate
from causalroute.evaluation.claims import CONTROL, PROPOSED, Gap, Versus, against_control, gap
from causalroute.evaluation.scoring import REFERENCE, Results, Row
from causalroute.report.blocks import Table, code, percent, signed
from causalroute.report.tables import verdict

TITLES = {"id": "ID", "ood": "OOD", "neutral": "neutral", "clean": "clean", "valid": "valid"}
METRICS = {
    "accuracy": "accuracy",
    "f1_macro": "macro F1",
    "worst_group": "worst group",
    "consistency_tv": "consistency",
    "held_out_accuracy_tv": "accuracy on held-out swaps",
    "core_accuracy": "accuracy on the core alone",
    "nll_calibrated": "NLL, calibrated",
}
LOWER = ("nll_calibrated",)
"""Metrics of which less is better."""


def sentences(results: Results, evaluate: Evaluate) -> list[str]:
    """How far shortcuts are overcome; what that costs on ID posts; what the mixture adds to plain double swap. What was not run is left out."""
    alpha = 1 - evaluate.confidence
    found = []
    if (best := gap(results, evaluate)) is not None:
        found.append(_overcome(best, alpha))
        row = results.find(best.row.method, "id", "accuracy")
        if row is not None and row.difference is not None:
            found.append(_cost(row, results.find(REFERENCE, "id", "accuracy"), alpha))
    if versus := [one for one in against_control(results, evaluate) if one.metric == "accuracy"]:
        found.append(_added(versus, alpha))
    return found


def points(value: float, low: float, high: float, judged: str = "") -> str:
    """A difference in points with its interval; says so where the interval alone would judge otherwise than Holm's test."""
    alone = " before Holm's correction" if judged == "same" and (low > 0 or high < 0) else ""
    return f"{signed(value)} points [{percent(low)}, {percent(high)}]{alone}"


def _place(row: Row) -> str:
    return f"On {TITLES[row.split]} posts" if row.metric == "accuracy" else f"In the worst group of {TITLES[row.split]} posts"


def _overcome(best: Gap, alpha: float) -> str:
    row, closed = best.row, best.closed
    chosen = f", the best there of {best.debiased} debiased methods (picked by this very score{aside(best)})," if best.debiased > 1 else ""
    text = f"{_place(row)} {code(row.method)}{chosen} is right in {percent(row.mean)} %"
    if best.reference is None:
        return f"{text}; without {code(REFERENCE)} there is nothing to compare it with."
    text += f" of cases, {code(REFERENCE)} in {percent(best.reference.mean)} %"
    if best.oracle is not None:
        text += f", the oracle {code(best.oracle.method)} in {percent(best.oracle.mean)} %"
    if row.difference is None or row.difference_low is None or row.difference_high is None:
        return f"{text}."
    change = points(row.difference, row.difference_low, row.difference_high, verdict(row, alpha))
    if closed is not None and verdict(row, alpha) == "better":
        return f"{text}: it closes {percent(closed.mean)} % [{percent(closed.low)}, {percent(closed.high)}] of the gap between them ({change})."
    return f"{text}: {_judged(verdict(row, alpha))} ({change}).{warning(best)}"


def aside(best: Gap) -> str:
    """Which methods could not be the best."""
    return f"; {best.aside} that do not beat the majority class on ID posts left out" if best.aside else ""


def warning(best: Gap) -> str:
    """What a score below that of the most frequent class means."""
    if not best.below_majority or best.majority is None:
        return ""
    return f" Always giving the most frequent class is right in {percent(best.majority.mean)} % there: nothing has been overcome."


def _judged(word: str) -> str:
    return {"better": "measurably better", "worse": "measurably worse", "same": "no measurable difference"}[word]


def _cost(row: Row, reference: Row | None, alpha: float) -> str:
    change = points(row.difference or 0.0, row.difference_low or 0.0, row.difference_high or 0.0, verdict(row, alpha))
    against = f"{percent(row.mean)} % against {percent(reference.mean)} %, {change}" if reference else change
    told = {
        "worse": "That costs accuracy on ID posts",
        "same": "On ID posts that costs no measurable accuracy",
        "better": "On ID posts accuracy rises as well",
    }[verdict(row, alpha)]
    return f"{told}: {against}."


def judge(one: Versus, alpha: float) -> str:
    """`better`, `worse` or `same` as the control after Holm."""
    if one.p_holm >= alpha:
        return "same"
    return "better" if (one.difference > 0) != (one.metric in LOWER) else "worse"


def _added(versus: Sequence[Versus], alpha: float) -> str:
    parts = [
        f"{TITLES[one.split]} {points(one.difference, one.difference_low, one.difference_high, judge(one, alpha))}, {_judged(judge(one, alpha))}"
        for one in sorted(versus, key=lambda one: one.split != "ood")
    ]
    return f"What the mixture {code(PROPOSED)} adds in accuracy to plain {code(CONTROL)} (same counterfactuals, no experts, no gates): {'; '.join(parts)}."


def control_table(results: Results, evaluate: Evaluate) -> Table | None:
    """Every kept metric of the proposed method against the control."""
    rows = []
    for one in against_control(results, evaluate):
        nats = one.metric in LOWER
        show = (lambda value: f"{round(value, 3) + 0.0:.3f}") if nats else percent
        gain = show(one.difference) if one.difference < 0 else f"+{show(one.difference)}"
        p = "< .001" if one.p_holm < 0.001 else f"{one.p_holm:.3f}".lstrip("0")
        sign = {"better": "▲ better", "worse": "▼ worse", "same": "= no measurable difference"}[judge(one, 1 - evaluate.confidence)]
        interval = f"{show(one.difference_low)}, {show(one.difference_high)}"
        rows.append((f"{METRICS[one.metric]} {TITLES[one.split]}", show(one.mean), show(one.control_mean), gain, interval, p, sign))
    if not rows:
        return None
    note = (
        "Percent (NLL in nats). Paired over items and seeds; Holm over the test splits of each metric. "
        f"{CONTROL} trains on the same counterfactuals without experts, gates and mediation."
    )
    header = ("metric", PROPOSED, CONTROL, "difference", "interval", "p (Holm)", "verdict")
    return Table(f"Against the strongest plain control: {PROPOSED} and {CONTROL}", header, tuple(rows), note, ("metric", "verdict"))
