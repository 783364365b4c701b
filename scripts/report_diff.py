"""What a branch changes: a Markdown comment for a pull request, from two git revisions and nothing else.

Reads reports/*/metrics.json, reports/*/plots/history.csv and params.yaml with `git show`: no data, no DVC remote, no checkout. Prints per
data set the metrics that moved (an arrow for better or worse, and whether the intervals overlap), the changed settings, the learning
curves, and the gate: exit code 1 when a guarded metric fell below the interval it had before.

    python scripts/report_diff.py origin/main HEAD --out comment.md
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MARK = "<!-- causalroute report -->"  # by which the comment is found again and replaced
GATES = ("causal_moe:ood:accuracy", "causal_moe:id:accuracy")
LOWER = ("ece", "brier", "nll", "context_excess", "unparsed")  # metrics of which less is better, by the start of their name
NEITHER = ("effect_", "gate_", "expert_")  # metrics that describe
MAIN = ("accuracy", "f1_macro", "worst_group")  # shown before the fold
BARS = "▁▂▃▄▅▆▇█"

Metrics = dict[tuple[str, str, str], dict[str, Any]]


@dataclass(frozen=True)
class Change:
    """One metric of one method on one split, before and after; None where it did not exist."""

    method: str
    split: str
    metric: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    @property
    def moved(self) -> float | None:
        """After minus before; None where one of them has no value."""
        values = [side.get("mean") if side else None for side in (self.before, self.after)]
        return None if None in values else values[1] - values[0]  # type: ignore[operator]

    @property
    def better(self) -> bool | None:
        """Whether the change is for the better; None where nothing moved."""
        up = higher_is_better(self.metric)
        return None if not self.moved or up is None else (self.moved > 0) == up

    @property
    def apart(self) -> bool:
        """Whether the two intervals do not overlap."""
        sides = [side for side in (self.before, self.after) if side and side.get("low") is not None and side.get("high") is not None]
        return len(sides) == 2 and (sides[0]["high"] < sides[1]["low"] or sides[1]["high"] < sides[0]["low"])


def higher_is_better(metric: str) -> bool | None:
    """Direction of a metric, from its name; None for those that only describe."""
    return None if metric.startswith(NEITHER) else not metric.startswith(LOWER)


def show(revision: str, path: str) -> str | None:
    """Text of a file at a revision, or None where it does not exist there."""
    done = subprocess.run(["git", "show", f"{revision}:{path}"], capture_output=True, text=True, encoding="utf-8", check=False)
    return done.stdout if done.returncode == 0 else None


def data_sets(revision: str) -> set[str]:
    """Data sets with a report at a revision.

    Raises:
        SystemExit: git does not know the revision.
    """
    done = subprocess.run(["git", "ls-tree", "-r", "--name-only", revision, "--", "reports/"], capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SystemExit(f"error: git does not know the revision {revision!r}\n  fix:   fetch it (`git fetch origin`), or name another one")
    return {Path(line).parts[1] for line in done.stdout.splitlines() if line.endswith("/metrics.json")}


def metrics(revision: str, name: str) -> Metrics:
    """(method, split, metric) -> {mean, low, high, seeds} of a data set at a revision."""
    text = show(revision, f"reports/{name}/metrics.json")
    nested = json.loads(text) if text else {}
    return {(m, s, k): value for m, splits in nested.items() for s, found in splits.items() for k, value in found.items()}


def changes(before: Metrics, after: Metrics) -> list[Change]:
    """Every metric that differs, new and vanished ones included, in the order of the later report."""
    keys = list(dict.fromkeys([*after, *before]))
    return [Change(*key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> {dotted key: value}; lists stay whole."""
    if isinstance(value, dict) and value:
        return {key: found for name, part in value.items() for key, found in flat(part, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): value}


def settings(revision: str) -> dict[str, Any]:
    """Settings of a revision, flattened."""
    return flat(yaml.safe_load(show(revision, "params.yaml") or "{}") or {})


def curves(revision: str, name: str) -> dict[str, list[float]]:
    """Validation accuracy per epoch of every method, mean over seeds."""
    found: dict[str, list[float]] = {}
    for row in csv.DictReader(io.StringIO(show(revision, f"reports/{name}/plots/history.csv") or "")):
        if row.get("valid_accuracy"):
            found.setdefault(row["method"], []).append(float(row["valid_accuracy"]))
    return found


def number(side: dict[str, Any] | None) -> str:
    """`0.912 [0.90, 0.92]`, or a dash where there is no value."""
    if not side or side.get("mean") is None:
        return "-"
    interval = f" [{side['low']:.3f}, {side['high']:.3f}]" if side.get("low") is not None and side.get("high") is not None else ""
    return f"{side['mean']:.4f}{interval}"


def row(change: Change) -> str:
    """One line of the table of metrics."""
    if change.moved is None:
        step, overlap = ("new" if change.before is None else "gone"), ""
    else:
        arrow = "" if change.better is None else "🟢 " if change.better else "🔴 "
        way = "▲" if change.moved > 0 else "▼" if change.moved < 0 else "="
        step, overlap = f"{arrow}{way} {change.moved:+.4f}", "apart" if change.apart else "overlap"
    return f"| {change.method} | {change.split} | {change.metric} | {number(change.before)} | {number(change.after)} | {step} | {overlap} |"


def table(found: Sequence[Change]) -> list[str]:
    """A Markdown table of changes."""
    head = ["| method | split | metric | before | after | change | intervals |", "|---|---|---|---:|---:|---:|---|"]
    return head + [row(change) for change in found]


def metric_section(name: str, found: Sequence[Change]) -> Iterator[str]:
    """Main metrics first; the others and the groups behind a fold."""
    yield f"### {name}\n"
    if not found:
        yield "No metric changed.\n"
        return
    better, worse = sum(c.better is True for c in found), sum(c.better is False for c in found)
    clear = sum(c.apart for c in found)
    yield f"{len(found)} values changed: {better} better, {worse} worse, {clear} with intervals apart.\n"
    main = [c for c in found if c.metric in MAIN and not c.split.startswith("group:")]
    rest = [c for c in found if c not in main]
    if main:
        yield "\n".join(table(main)) + "\n"
    if rest:
        yield f"<details><summary>{len(rest)} other metrics and groups</summary>\n\n" + "\n".join(table(rest)) + "\n\n</details>\n"


def params_section(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Changed settings."""
    keys = [key for key in dict.fromkeys([*before, *after]) if before.get(key, MARK) != after.get(key, MARK)]
    if keys:
        shown = {key: [json.dumps(side[key], ensure_ascii=False) if key in side else "-" for side in (before, after)] for key in keys}
        lines = [f"| `{key}` | {cell(old)} | {cell(new)} |" for key, (old, new) in shown.items()]
        yield "### Settings\n\n| key | before | after |\n|---|---|---|\n" + "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Text that cannot break out of a table cell."""
    return "`" + text.replace("|", "\\|").replace("`", "'")[:200] + "`"


def sparkline(values: Sequence[float], low: float, high: float, width: int = 24) -> str:
    """A curve in one line of text, at most `width` characters."""
    step = max(1, -(-len(values) // width))
    scale = (len(BARS) - 1) / ((high - low) or 1.0)
    return "".join(BARS[round((value - low) * scale)] for value in values[::step])


def curve_section(name: str, before: dict[str, list[float]], after: dict[str, list[float]]) -> Iterator[str]:
    """Learning curves that differ: a line of text each, and a chart of the first guarded method among them."""
    moved = [method for method in dict.fromkeys([*after, *before]) if before.get(method) != after.get(method)]
    if not moved:
        return
    every = [value for side in (before, after) for method in moved for value in side.get(method, [])]
    lines = [f"| {m} | {curve(before.get(m, []), min(every), max(every))} | {curve(after.get(m, []), min(every), max(every))} |" for m in moved]
    yield f"<details><summary>{name}: validation accuracy while training ({len(moved)} curves changed)</summary>\n"
    yield "| method | before | after |\n|---|---|---|\n" + "\n".join(lines) + "\n"
    guarded = next((gate.split(":")[0] for gate in GATES if gate.split(":")[0] in moved), moved[0])
    yield chart(guarded, [side[guarded] for side in (before, after) if side.get(guarded)], min(every), max(every))
    yield "</details>\n"


def curve(values: Sequence[float], low: float, high: float) -> str:
    """Sparkline and last value."""
    return f"`{sparkline(values, low, high)}` {values[-1]:.4f}" if values else "-"


def chart(method: str, lines: Sequence[Sequence[float]], low: float, high: float) -> str:
    """A chart that GitHub draws from text: first line before, second line after."""
    plotted = "\n".join("  line [" + ", ".join(f"{value:.4f}" for value in line) + "]" for line in lines)
    epochs = max(map(len, lines))
    axes = f'  x-axis "epoch" 1 --> {max(2, epochs)}\n  y-axis "valid accuracy" {low:.3f} --> {max(high, low + 0.001):.3f}'
    return f'```mermaid\nxychart-beta\n  title "{method}: before, then after"\n{axes}\n{plotted}\n```\n'


def gate(rule: str, before: Metrics, after: Metrics) -> tuple[bool, str]:
    """Judges `method:split:metric` or `method:split:metric>=0.8`.

    Without a number the value may not leave its former interval for the worse; with one it may not fall below (`>=`) it.
    """
    name, _, floor = rule.partition(">=")
    method, split, metric = name.strip().split(":")
    old, new = before.get((method, split, metric)), after.get((method, split, metric))
    if new is None or new.get("mean") is None:
        return old is None and not floor, f"{name}: no value any more" if old else f"{name}: no value"
    if floor:
        return new["mean"] >= float(floor), f"{name}: {new['mean']:.4f}, needed {float(floor):.4f}"
    if old is None or old.get("mean") is None:
        return True, f"{name}: {new['mean']:.4f}, nothing to compare with"
    up = higher_is_better(metric) is not False
    bound = old.get("low" if up else "high")
    bound = old["mean"] if bound is None else bound
    return (new["mean"] >= bound if up else new["mean"] <= bound), f"{name}: {new['mean']:.4f}, before {number(old)}"


def comment(base: str, head: str, rules: Sequence[str]) -> tuple[str, bool]:
    """The comment, and whether the gate holds."""
    names = sorted(data_sets(base) | data_sets(head))
    parts, verdicts = [], []
    for name in names:
        before, after = metrics(base, name), metrics(head, name)
        parts += [*metric_section(name, changes(before, after)), *curve_section(name, curves(base, name), curves(head, name))]
        if after:  # a data set that the branch no longer reports is shown as gone, not judged
            verdicts += [(name, *gate(rule, before, after)) for rule in rules if rule.split(":")[0] in {key[0] for key in (*before, *after)}]
    parts += params_section(settings(base), settings(head))
    holds = all(ok for _, ok, _ in verdicts)
    lines = [f"- {'✅' if ok else '❌'} {name}: {text}" for name, ok, text in verdicts] or ["- nothing to judge: no guarded method is reported"]
    head_lines = [MARK, f"## Results: {'gate holds' if holds else 'gate fails'}\n", "\n".join(lines) + "\n"]
    return "\n".join(head_lines + (parts or ["No reports in either revision.\n"])), holds


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the comment; exit code 1 when the gate fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("base", help="revision to compare with, such as origin/main")
    parser.add_argument("head", nargs="?", default="HEAD", help="revision to judge (default: HEAD)")
    parser.add_argument("--out", type=Path, help="file for the comment (default: standard output)")
    parser.add_argument("--gate", action="append", metavar="METHOD:SPLIT:METRIC[>=FLOOR]", help=f"what to guard (default: {' '.join(GATES)})")
    args = parser.parse_args(argv)
    text, holds = comment(args.base, args.head, args.gate or GATES)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
