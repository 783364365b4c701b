"""A bar chart as SVG text, for the benchmark of the router."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
CSS = "text{font:12px sans-serif;fill:#444}@media(prefers-color-scheme:dark){text{fill:#ddd}}"


def bars(values: Sequence[tuple[str, str, float]], title: str) -> str:
    """(group, series, share) triples: one group of bars per line, a share of 1 as the full width."""
    groups, series = list(dict.fromkeys(v[0] for v in values)), list(dict.fromkeys(v[1] for v in values))
    left, right, bar = 230, 60, 14
    step, width = bar * len(series) + 14, 720
    parts = [f"<style>{CSS}</style>"]
    for i, name in enumerate(series):
        parts.append(f'<rect x="{10 + 140 * i}" y="10" width="12" height="12" fill="{COLOURS[i % len(COLOURS)]}"/>')
        parts.append(f'<text x="{28 + 140 * i}" y="20">{escape(name)}</text>')
    for group, name, share in values:
        top = 40 + groups.index(group) * step + series.index(name) * bar
        length = min(share, 1.0) * (width - left - right)
        parts.append(f'<rect x="{left}" y="{top}" width="{length:.1f}" height="{bar - 2}" fill="{COLOURS[series.index(name) % len(COLOURS)]}"/>')
        parts.append(f'<text x="{left + length + 6:.1f}" y="{top + 10}">{share:.0%}</text>')
    for i, group in enumerate(groups):
        parts.append(f'<text x="{left - 8}" y="{40 + i * step + bar * len(series) / 2 + 4:.0f}" text-anchor="end">{escape(group)}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {50 + step * len(groups)}" role="img">'
    return f"{head}<title>{escape(title)}</title>{''.join(parts)}</svg>\n"
