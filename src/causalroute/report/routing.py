"""Where the router sends posts: a heatmap of gates and experts, by split and by group, for every method that has some."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from causalroute.report import charts
from causalroute.report.blocks import percent
from causalroute.report.claims import TITLES
from causalroute.report.figures import Figure, slug
from causalroute.report.tables import KINDS

SAME, SPREAD = 0.02, 0.05
"""Gates whose means differ less between splits, and less between posts, count as constant."""


def heatmaps(table: pl.DataFrame, names: Mapping[str, str], visual: str = "image") -> list[Figure]:
    """One figure for each method of `gates.csv`; `names` maps methods to printed names, `visual` is what the image side is."""
    hard = next((split for split in ("ood", "id") if split in table["split"].to_list()), "")
    shown = table.filter((pl.col("group") == "") | (pl.col("split") == hard))
    return [_heatmap(shown.filter(pl.col("method") == method), names[method], method, visual) for method in names if (shown["method"] == method).any()]


def _heatmap(part: pl.DataFrame, name: str, method: str, visual: str) -> Figure:
    places = sorted(dict.fromkeys(zip(part["split"], part["family"], part["group"], strict=True)), key=lambda place: place[2] != "")
    columns = list(dict.fromkeys(zip(part["kind"], part["name"], strict=True)))
    columns.sort(key=lambda column: column[0] != "gates")
    means = {tuple(row[:-1]): row[-1] for row in part.select("split", "family", "group", "kind", "name", "mean").iter_rows()}
    values = [[means.get((*place, *column)) for column in columns] for place in places]
    other = "attributes" if visual == "attributes" else "image"
    titles = [title(kind, column).replace("image", other) for kind, column in columns]
    labels = [f"{TITLES[split]} {family.removesuffix('_shortcut')}: {group}" if group else TITLES[split] for split, family, group in places]
    summary = "; ".join(
        f"{label}: " + ", ".join(f"{title} {100 * share:.0f} %" for title, share in zip(titles, row, strict=True) if share is not None)
        for label, row in zip(labels, values, strict=True)
    )
    gates = sum(kind == "gates" for kind, _ in columns)
    heading = f"Routing of {name}: gates and experts" if gates else f"Routing of {name}: experts"
    caption = "Mean weight over posts and seeds, in percent; rows with a colon are groups. "
    caption += f"Gates: keep both contexts, treat the text, the {other}, or both; experts are named by their gate. {constant(part)}" if gates else ""
    drawing = charts.heatmap(labels, titles, values, heading, summary, after=gates if gates < len(columns) else 0)
    return Figure(f"gates_{slug(method)}", heading, caption.strip(), drawing)


def title(kind: str, name: str) -> str:
    """A column's title."""
    return f"gate {KINDS.get(name, name)}" if kind == "gates" else name


def constant(part: pl.DataFrame) -> str:
    """What to say where the router sends (nearly) every post the same way; empty where it tells posts apart."""
    whole = part.filter((pl.col("group") == "") & (pl.col("kind") == "gates"))
    most = whole.sort("mean", descending=True).row(0, named=True)
    weights, spread = whole.filter(pl.col("name") == most["name"])["mean"].to_list(), max(whole["spread"].to_list())
    if max(weights) - min(weights) > SAME or spread > SPREAD:
        return ""
    between = f"between {percent(min(weights))} and {percent(max(weights))} %"
    return (
        f"Here the router tells no posts apart: the mean weight of the gate {KINDS.get(most['name'], most['name'])} lies {between} in every split, with a "
        f"standard deviation over posts of {percent(spread)} points at most. The gates explain nothing about single posts in this run."
    )
