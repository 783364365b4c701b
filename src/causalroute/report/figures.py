"""Tables -> figures. A method has the same colour and shape in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from causalroute.evaluation.collect import TESTS
from causalroute.evaluation.scoring import INVERTED, REFERENCE
from causalroute.report import charts
from causalroute.report.blocks import signed
from causalroute.report.charts import Axis, Point, Series, nice_axis
from causalroute.report.claims import TITLES

FOCUS = ("erm", "causal_moe")
"""Methods that figures with several curves per method show; others are in the tables."""
ASIDE = ("majority", INVERTED)
"""Rows without a model of their own: in the tables, but figures would have to stretch for them."""
EFFECT_NAMES = {"te": "TE", "nde_t": "NDE text", "nde_v": "NDE image", "nde_tv": "NDE both", "int": "INT", "tie": "TIE"}


@dataclass(frozen=True)
class Figure:
    """File stem, heading, what it shows, and the drawing."""

    key: str
    title: str
    caption: str
    svg: str


def figures(tables: Mapping[str, pl.DataFrame], names: Mapping[str, str]) -> list[Figure]:
    """Every figure that the tables allow, but those on routing; `names` maps methods to printed names, in the order of the result table."""
    styles = {method: i for i, method in enumerate(names)}
    found = [
        _scatter(tables["id_vs_ood"], names, styles),
        _differences(tables["results"], names),
        *_groups(tables["groups"], names),
        _effects(tables["effects"], names),
    ]
    found += [*_reliability(tables["reliability"], names, styles), *_history(tables["history"], names, styles)]
    return [figure for figure in found if figure is not None]


def _scatter(table: pl.DataFrame, names: Mapping[str, str], styles: Mapping[str, int]) -> Figure | None:
    both = table.drop_nulls(["id", "ood"]).filter(~pl.col("method").is_in(ASIDE))
    if both.is_empty():
        return None
    rows = sorted(both.iter_rows(named=True), key=lambda row: styles[row["method"]])
    series = [
        Series(names[r["method"]], styles[r["method"]], [Point(r["id"], r["ood"], (r["id_low"], r["id_high"]), (r["ood_low"], r["ood_high"]))]) for r in rows
    ]
    x = nice_axis([v for r in rows for v in (r["id_low"], r["id_high"])], "accuracy ID, %", percent=True)
    y = nice_axis([v for r in rows for v in (r["ood_low"], r["ood_high"])], "accuracy OOD, %", percent=True)
    summary = "; ".join(f"{names[r['method']]}: ID {100 * r['id']:.1f}, OOD {100 * r['ood']:.1f}" for r in rows)
    caption = "Up and to the right is better. The dashed line marks equal accuracy on both: a method below it leans on what changes between the splits."
    return Figure("id_vs_ood", "ID against OOD accuracy", caption, charts.plot(series, x, y, "ID against OOD accuracy", summary, diagonal=True, height=400))


def _differences(table: pl.DataFrame, names: Mapping[str, str]) -> Figure | None:
    part = table.filter((pl.col("metric") == "accuracy") & pl.col("split").is_in(TESTS) & ~pl.col("method").is_in(ASIDE))
    part = part.drop_nulls(["difference"])
    if part.is_empty():
        return None
    methods = [method for method in names if method in part["method"].to_list()]
    series = []
    for i, split in enumerate(split for split in TESTS if split in part["split"].to_list()):
        rows = part.filter(pl.col("split") == split).iter_rows(named=True)
        points = [Point(r["difference"], methods.index(r["method"]), (r["difference_low"], r["difference_high"])) for r in rows]
        series.append(Series(TITLES[split], i, points))
    x = nice_axis([v for one in series for p in one.points for v in (p.x_range or ())], f"accuracy minus {REFERENCE}, points", percent=True, zero=True)
    title = f"Difference from {REFERENCE}"
    summary = "; ".join(f"{names[r['method']]}, {TITLES[r['split']]}: {signed(r['difference'])}" for r in part.iter_rows(named=True))
    caption = "Same items, same seeds. An interval that reaches the broken line leaves open whether there is any difference (before Holm)."
    return Figure("differences", title, caption, charts.rows_plot([names[m] for m in methods], series, x, title, summary))


def _groups(table: pl.DataFrame, names: Mapping[str, str]) -> list[Figure]:
    present = table["split"].unique().to_list()
    split = next((s for s in ("ood", "id") if s in present), None)
    found = []
    for family in sorted(table["family"].unique().to_list()):
        part = table.filter((pl.col("split") == split) & (pl.col("family") == family))
        methods = [method for method in names if method in part["method"].to_list() and method not in ASIDE]
        part = part.filter(pl.col("method").is_in(methods))
        sizes = dict(zip(part["group"], part["n"], strict=True))
        series = [
            Series(f"{group} (n = {sizes[group]})", i, _row_points(part.filter(pl.col("group") == group), methods)) for i, group in enumerate(sorted(sizes))
        ]
        if not series or split is None:
            continue
        title = f"Accuracy by group on {TITLES[split]}: {family}"
        drawing = charts.rows_plot(
            [names[m] for m in methods], series, Axis(0, 1, "accuracy, %", True, [i / 5 for i in range(6)]), title, _told(part, names, "group")
        )
        caption = "A short distance between the marks of a method means that it treats the groups alike. Lines are intervals."
        found.append(Figure(f"groups_{slug(family)}", title, caption, drawing))
    return found


def slug(text: str) -> str:
    """A part of an element's id."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in text)


def _row_points(part: pl.DataFrame, methods: Sequence[str]) -> list[Point]:
    return [Point(row["mean"], methods.index(row["method"]), (row["low"], row["high"])) for row in part.iter_rows(named=True)]


def _told(part: pl.DataFrame, names: Mapping[str, str], key: str) -> str:
    return "; ".join(f"{names[row['method']]}, {row[key]}: {row['mean']:.3f}" for row in part.iter_rows(named=True))


def _effects(table: pl.DataFrame, names: Mapping[str, str]) -> Figure | None:
    if table.is_empty():
        return None
    places = list(dict.fromkeys(zip(table["method"], table["split"], strict=True)))
    several = len({method for method, _ in places}) > 1
    labels = [f"{names[m]}, {TITLES[s]}" if several else TITLES[s] for m, s in places]
    series = []
    for i, (effect, title) in enumerate(EFFECT_NAMES.items()):
        rows = [r for r in table.iter_rows(named=True) if r["effect"] == effect]
        if not rows:
            continue
        points = [(places.index((r["method"], r["split"])), r) for r in rows]
        series.append(Series(f"{title}, estimated", i, [Point(r["mean"], at, (r["low"], r["high"])) for at, r in points]))
        if any(r["planted"] is not None for r in rows):
            series.append(Series(f"{title}, planted", i, [Point(r["planted"], at) for at, r in points if r["planted"] is not None], hollow=True))
    x = nice_axis([p.x for one in series for p in one.points], "mean effect on the gold class, log-odds", zero=True)
    caption = "Above zero a modality's context speaks for the gold class by itself, below zero against it. A core cue has no direct effect."
    caption += " INT: what both contexts do together beyond their sum. TIE: what is left of TE without them." if "tie" in table["effect"] else ""
    title = "Estimated effects" + (" against planted ones" if table["planted"].count() else "")
    return Figure("effects", title, caption, charts.rows_plot(labels, series, x, "Effects by split", _told(table, names, "effect")))


def _reliability(table: pl.DataFrame, names: Mapping[str, str], styles: Mapping[str, int]) -> list[Figure]:
    focus = [m for m in FOCUS if m in names] or list(names)[:2]
    found = []
    for split in ("id", "ood"):
        part = table.filter(pl.col("split") == split)
        series = [
            Series(f"{names[m]}, {when}", styles[m] if when == "raw" else styles[m] + charts.COLOURS, _curve(part, m, when), when != "raw")
            for m in focus
            for when in ("raw", "calibrated")
        ]
        series = [one for one in series if one.points]
        if not series:
            continue
        unit = [i / 5 for i in range(6)]
        title = f"Reliability on {TITLES[split]}"
        summary = "; ".join(f"{one.name}: " + ", ".join(f"{p.x:.2f} to {p.y:.2f}" for p in one.points) for one in series)
        drawing = charts.plot(
            series, Axis(0, 1, "confidence, %", True, unit), Axis(0, 1, "accuracy, %", True, unit), title, summary, joined=True, diagonal=True
        )
        caption = "On the diagonal a confidence of 80 % is right in 80 % of cases. Calibrated: after one temperature fitted on validation (broken line)."
        found.append(Figure(f"reliability_{split}", title, caption, drawing))
    return found


def _curve(part: pl.DataFrame, method: str, when: str) -> list[Point]:
    return [Point(r["confidence"], r["accuracy"]) for r in part.filter((pl.col("method") == method) & (pl.col("when") == when)).iter_rows(named=True)]


def _history(table: pl.DataFrame, names: Mapping[str, str], styles: Mapping[str, int]) -> list[Figure]:
    found = []
    shown = (("valid_accuracy", "Validation accuracy", "accuracy, %", True), ("train_loss", "Training loss", "loss", False))
    for column, title, axis, shares in shown:
        part = table.drop_nulls([column])
        series = []
        for method in (m for m in names if m in part["method"].to_list()):
            rows = part.filter(pl.col("method") == method).iter_rows(named=True)
            series.append(Series(names[method], styles[method], [Point(r["epoch"], r[column]) for r in rows]))
        if not series:
            continue
        x = nice_axis([p.x for one in series for p in one.points], "epoch")
        y = nice_axis([p.y for one in series for p in one.points], axis, shares)
        summary = "; ".join(f"{one.name}: {one.points[0].y:.3f} to {one.points[-1].y:.3f}" for one in series)
        caption = (
            "Mean over seeds. Losses of different methods have different terms: compare the shape, not the height."
            if column == "train_loss"
            else "Mean over seeds."
        )
        found.append(Figure(f"history_{column}", title, caption, charts.plot(series, x, y, f"{title} by epoch", summary, joined=True, height=320)))
    return found
