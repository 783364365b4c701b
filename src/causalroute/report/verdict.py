"""What a stranger wants to know first: did it work, how sure are we, what does it cost, what do the experts add. Short words, one small figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from causalroute.config import Evaluate
from causalroute.evaluation.claims import CONTROL, PROPOSED, Gap, Versus, against_control, gap
from causalroute.evaluation.scoring import REFERENCE, Results, Row
from causalroute.report import charts
from causalroute.report.blocks import code, number, percent
from causalroute.report.charts import Axis, Point, Series
from causalroute.report.claims import TITLES, aside, judge, points, warning
from causalroute.report.figures import Figure
from causalroute.report.tables import verdict

PLACES = {
    ("ood", "accuracy"): "OOD posts, where the shortcut misleads",
    ("id", "worst_group"): "the worst group of ID posts (there are no OOD posts)",
}
TONES = {"better": "good", "worse": "bad", "same": "open", "": "open"}


@dataclass(frozen=True)
class Answer:
    """A question, its answer in a few words, and the sentence behind it; `tone` is good, bad or open."""

    question: str
    short: str
    text: str
    tone: str = "open"


def answers(results: Results, evaluate: Evaluate) -> list[Answer]:
    """The questions that this run can answer; at least the first."""
    best = gap(results, evaluate)
    if best is None:
        return [Answer("Did it work?", "Not asked", "No method of this run does anything against shortcuts: the tables compare baselines.")]
    alpha = 1 - evaluate.confidence
    cost = results.find(best.row.method, "id", "accuracy")
    found = [_worked(best, cost, alpha)]
    if best.reference is not None and best.row.difference is not None:
        found.append(_sure(results, best, evaluate))
        if cost is not None and (best.row.split, best.row.metric) != ("id", "accuracy"):
            found.append(_price(cost, results.find(REFERENCE, "id", "accuracy"), alpha))
    if versus := [one for one in against_control(results, evaluate) if one.metric == "accuracy"]:
        found.append(_added(versus, alpha))
    return found


def _worked(best: Gap, cost: Row | None, alpha: float) -> Answer:
    row, question = best.row, "Did it work?"
    right = f"On {PLACES[row.split, row.metric]}, {code(row.method)} is right in {percent(row.mean)} % of cases"
    if best.reference is None or row.difference is None:
        return Answer(question, "Cannot be told", f"{right}; without {code(REFERENCE)}, plain training, there is nothing to compare it with.")
    text = f"{right}, plain training ({code(REFERENCE)}) in {percent(best.reference.mean)} %."
    judged = verdict(row, alpha)
    short = {"better": "Yes", "worse": "No, it is worse", "same": "Not measurably"}[judged]
    if judged == "better" and best.closed is not None and best.oracle is not None:
        short = "In part" if best.closed.high < 0.5 else short
        text += (
            f" That is {percent(best.closed.mean)} % [{percent(best.closed.low)}, {percent(best.closed.high)}] of the lead of {code(best.oracle.method)}, "
            "which was given what no real data has."
        )
    if judged == "better" and best.below_majority:
        return Answer(question, "No", text + warning(best), "bad")
    if short == "Yes" and cost is not None and verdict(cost, alpha) == "worse":
        return Answer(question, "Yes, at a price", text, "open")
    return Answer(question, short, text, TONES[judged])


def _sure(results: Results, best: Gap, evaluate: Evaluate) -> Answer:
    row, alpha = best.row, 1 - evaluate.confidence
    change = points(row.difference or 0.0, row.difference_low or 0.0, row.difference_high or 0.0, verdict(row, alpha))
    posts = f"{len(results.seeds)} training seed{'s' if len(results.seeds) > 1 else ''} and {number(row.items)} test posts"
    text = f"The difference with its {100 * evaluate.confidence:g} % interval, over {posts} jointly; {_p(row.p_holm)} after Holm's correction over methods."
    if verdict(row, alpha) == "same" and row.detectable:
        text += f" A study of this size sees differences from {percent(row.detectable)} points on (80 % power)."
    if best.debiased > 1:
        text += f" {code(row.method)} was picked of {best.debiased} debiased methods by this very score{aside(best)}: its lead over the others is optimistic."
    return Answer("How sure are we?", change, text, TONES[verdict(row, alpha)])


def _p(value: float | None) -> str:
    return "p < .001" if value is None or value < 0.001 else f"p = {value:.3f}".replace("0.", ".", 1)


def _price(row: Row, reference: Row | None, alpha: float) -> Answer:
    judged = verdict(row, alpha)
    change = points(row.difference or 0.0, row.difference_low or 0.0, row.difference_high or 0.0, judged)
    short = {"same": "None measurable", "worse": change, "better": "None: it rises too"}[judged]
    against = f" against {percent(reference.mean)} %" if reference else ""
    rest = "" if judged == "worse" else f": {change}"
    return Answer("At what price on ID posts?", short, f"Accuracy there is {percent(row.mean)} %{against}{rest}.", "bad" if judged == "worse" else "good")


def _added(versus: Sequence[Versus], alpha: float) -> Answer:
    ordered = sorted(versus, key=lambda one: one.split != "ood")
    parts = [f"{TITLES[o.split]} {points(o.difference, o.difference_low, o.difference_high, judge(o, alpha))}" for o in ordered]
    gains, losses = ([TITLES[o.split] for o in ordered if judge(o, alpha) == side] for side in ("better", "worse"))
    short = [f"{word} on {' and '.join(found)}" for word, found in (("Better", gains), ("Worse", losses)) if found]
    text = f"Accuracy of {code(PROPOSED)} minus {code(CONTROL)}, the same counterfactuals without experts and gates: {'; '.join(parts)}."
    told = ", ".join(short) or "Nothing measurable"
    return Answer("What do the experts add?", told, text, "bad" if losses and not gains else "good" if gains and not losses else "open")


def figure(results: Results, evaluate: Evaluate) -> Figure | None:
    """Reference, best debiased method, the mixture and the oracle where shortcuts cost most, and on ID posts; None where nothing was debiased."""
    best = gap(results, evaluate)
    if best is None:
        return None
    roles = {REFERENCE: "plain", best.row.method: "best", **({} if best.row.method == PROPOSED else {PROPOSED: "mixture"})}
    roles |= {best.oracle.method: "oracle"} if best.oracle else {}
    methods = [method for method in roles if method in results.answers]
    labels = [method if roles[method] == "oracle" else f"{method}, {roles[method]}" for method in methods]
    places = list(dict.fromkeys([("id", "accuracy"), (best.row.split, best.row.metric)]))
    series, told = [], []
    for style, place in enumerate(places):
        title = f"{TITLES[place[0]]} posts" if place[1] == "accuracy" else f"worst group of {TITLES[place[0]]} posts"
        rows = [(i, row) for i, method in enumerate(methods) if (row := results.find(method, *place)) is not None]
        series.append(Series(title, style, [Point(row.mean, i, (row.low, row.high)) for i, row in rows], hollow=style == 0))
        told += [f"{labels[i]}, {title}: {percent(row.mean)} % [{percent(row.low)}, {percent(row.high)}]" for i, row in rows]
    axis = Axis(0, 1, "right answers, %", True, [i / 5 for i in range(6)])
    title = "Right answers of the methods that matter"
    drawing = charts.rows_plot(labels, series, axis, title, "; ".join(told), left=26 + 6.5 * max(map(len, labels)), least=38)
    return Figure("verdict", "Right answers", "Far apart: the method leans on what changes between the posts. Lines are intervals.", drawing)
