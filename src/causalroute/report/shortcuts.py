"""audit.json -> the section on shortcuts: what the posts give away before any model is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from causalroute.report import charts
from causalroute.report.blocks import ROWS, Section, Table, code, counted, cut, number, percent, share
from causalroute.report.charts import Axis, Point, Series
from causalroute.report.figures import Figure

HEADER = ("cue", "kind", "goes with", "share there", "train posts", "share in valid", "valid posts", "log-odds", "AUC", "log10 p", "explains")
WHAT = {"text": "texts", "image": "images"}
HOW = {"exact": "equal", "near": "nearly equal"}


def section(audit: Mapping[str, Any], summary: Mapping[str, Any]) -> Section | None:
    """Sentences and tables; None where nothing was audited."""
    if not audit:
        return None
    shortcuts, associations = audit.get("shortcuts", []), audit.get("associations", [])
    words = "Words, punctuation and attribute words that pass the same test: they may be the meaning itself, so they are no shortcut by themselves."
    return Section(
        sentences=(*_strongest(shortcuts, summary), *_together(audit), _tested(audit), *_twins(audit, summary)),
        tables=(_table("Shortcuts, the surest first", shortcuts),) if shortcuts else (),
        folded=(_table("Associated words", associations, words),) if associations else (),
    )


def figure(audit: Mapping[str, Any]) -> Figure | None:
    """What a simple classifier gets right from one side of a post alone, beside the majority class."""
    probes = audit.get("probes", {})
    if not probes:
        return None
    found = [Point(p["accuracy"], i, (p["low"], p["high"])) for i, p in enumerate(probes.values())]
    majority = [Point(p["majority"], i) for i, p in enumerate(probes.values())]
    summary = "; ".join(f"{name}: {percent(p['accuracy'])} against {percent(p['majority'])}" for name, p in probes.items())
    axis = Axis(0, 1, "accuracy, %", True, [i / 5 for i in range(6)])
    series = [Series("probe with its interval", 0, found), Series("majority class", 1, majority, hollow=True)]
    title = "What a probe reads off"
    drawing = charts.rows_plot(list(probes), series, axis, title, summary)
    caption = (
        f"Cross-fitted on train and validation posts: {summary}. Surface (tokens and forms without any word), image statistics and metadata carry no meaning: "
        "the farther they lie above the majority class, the more a model can gain without reading the post."
    )
    return Figure("probes", title, caption, drawing)


def _strongest(shortcuts: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> list[str]:
    """The surest finding; the surest cue of the text where that is another one; and the cue that gives a class away most often."""
    if not shortcuts:
        return ["No surface token, form or image statistic goes with a class more than chance allows."]
    counted_cues = [cue for cue in shortcuts if "share" in cue]
    chosen = {"surest shortcut": shortcuts[0]}
    if counted_cues:
        chosen["surest cue of the text"] = counted_cues[0]
        chosen["purest cue"] = max(counted_cues, key=lambda cue: (cue["share"], cue["posts"]))
    told: dict[str, str] = {}
    for title, cue in chosen.items():
        told.setdefault(_told(cue, summary), f"The {title} is {_told(cue, summary)}")
    return list(told.values())


def _told(cue: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    name, label = code(str(cue["cue"])), cue["class"]
    if "share" not in cue:
        side = "higher" if cue.get("auc", 1.0) >= 0.5 else "lower"
        return f"the {cue['kind']} statistic {name}: it is {side} in {label} posts (AUC {cue.get('auc', 0.0):.2f} against the rest; 0.5 says nothing)."
    train = summary.get("splits", {}).get("train", {})
    base = train.get("labels", {}).get(label)
    against = f", against {share(base / train['items'])} of all train posts" if base is not None and train.get("items") else ""
    checked = f"; in validation {share(cue['valid_share'])} of {number(cue['valid_posts'])}" if cue.get("valid_posts") else ""
    return f"the {cue['kind']} {name}: {share(cue['share'])} of the {number(cue['posts'])} train posts with it are {label}{against}{checked}."


def _together(audit: Mapping[str, Any]) -> list[str]:
    """How much of the label all shortcuts explain, and which kind of them tells what no other does."""
    joint = audit.get("joint", {})
    if not joint.get("cues"):
        return []
    share_explained = percent(max(0.0, joint["explained"]))
    told = f"Together the shortcuts explain {share_explained} % of the label's entropy (cross-fitted), accuracy {percent(joint['accuracy'])} %"
    kinds = [drop for drop in joint["without"] if drop["what"] == "kind" and drop["drop"] > 0][:3]
    parts = [f"{percent(max(0.0, drop['explained']))} % without {code(drop['without'])}" for drop in kinds]
    return [f"{told}{'; ' if parts else ''}{', '.join(parts)}."]


def _tested(audit: Mapping[str, Any]) -> str:
    tests, counts = audit.get("tests", {}), audit.get("counts", {})
    passed = ", ".join(f"{kind} {number(count)}" for kind, count in counts.items()) or "none"
    if not tests:
        return f"Passed: {passed}."
    control = {"fdr": f"Benjamini-Hochberg: false discovery rate {tests['alpha']:g}"}.get(
        tests.get("control", "fwer"), f"Bonferroni: family-wise {tests['alpha']:g}, log10 p below {tests['log10_bar']:.1f}"
    )
    pairs = tests.get("pairs_explained_by_a_token", 0)
    apart = f" {number(pairs)} pairs of tokens that tell no more than one of their tokens are left out." if pairs else ""
    return f"{number(tests['made'])} candidates were tested on train posts ({control}); passed: {passed}.{apart}"


def _table(title: str, cues: Sequence[Mapping[str, Any]], note: str = "") -> Table:
    """Columns that no cue fills are left out."""
    rows = [
        (
            str(c["cue"]), str(c["kind"]), str(c["class"]), share(c.get("share")), _whole(c.get("posts")), share(c.get("valid_share")),
            _whole(c.get("valid_posts")), _decimal(c.get("log_odds"), 2), _decimal(c.get("auc"), 2), _decimal(c.get("log10_p"), 0),
            _explains(c.get("explains")),
        )
        for c in cues
    ]  # fmt: skip
    used = [i for i in range(len(HEADER)) if any(row[i] != "–" for row in rows[:ROWS])]
    return cut(title, [HEADER[i] for i in used], [[row[i] for i in used] for row in rows], note, ("cue", "kind", "goes with"))


def _whole(value: int | None) -> str:
    return "–" if value is None else number(value)


def _explains(value: float | None) -> str:
    return "–" if value is None else f"{percent(value)} %"


def _decimal(value: float | None, places: int) -> str:
    return "–" if value is None else f"{round(value, places) + 0.0:.{places}f}"


def _twins(audit: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    """Leaks, duplicates and posts left out, one sentence each; what was not looked for is said."""
    leaks, doubles = audit.get("leaks", {}), audit.get("duplicates", {})
    found = []
    kinds = [(how, side, leaks.get(f"{how}_{side}")) for side in WHAT for how in ("exact", "near") if f"{how}_{side}" in leaks]
    if told := [f"{number(count)} with {'the same' if how == 'exact' else 'only nearly the same'} {side}" for how, side, count in kinds if count]:
        found.append(f"Leaks: ID posts that recur in train or validation: {', '.join(told)}.")
    elif any(count is not None for _, _, count in kinds):
        found.append("Leaks: no ID post recurs in train or validation.")
    if told := [f"{number(leaks[key])} by {side}" for side in WHAT if leaks.get(key := f"conflicts_{side}")]:
        found.append(f"Labels at odds: train or validation posts with an exact twin of another class: {', '.join(told)}.")
    pairs = [f"{number(doubles[key])} of {HOW[how]} {WHAT[side]}" for side in WHAT for how in ("exact", "near") if doubles.get(key := f"{how}_{side}")]
    if doubles:
        largest = f"; the largest group has {number(doubles['largest_group'])} posts" if doubles.get("largest_group", 0) > 1 else ""
        found.append(f"Duplicate posts: {'pairs ' + ', '.join(pairs) if pairs else 'none'}{largest}.")
    missing = [f"{HOW[how]} {WHAT[side]}" for how, side, count in kinds if count is None]
    if missing:
        found.append(f"Not looked for: {', '.join(missing)}.")
    dropped = counted(summary.get("dropped", {}))
    return [*found, f"Left out while preparing: {dropped}." if dropped else "No post was left out."]
