"""Small SVG charts: text in, text out, so equal tables give equal bytes. Colours come from CSS variables and follow light and dark.

Coordinates are in the units of the view box (about 11 px text on a phone). Okabe and Ito's colours, told apart by shape as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

SHAPES = ("circle", "square", "triangle", "diamond")
COLOURS = 7
WIDTH = 520
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 12, 40
LINE = 17
"""Height of a legend line."""


@dataclass(frozen=True)
class Point:
    """A mark with optional intervals (low, high) in both directions."""

    x: float
    y: float
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Series:
    """Named points; `style` picks colour and shape, so that a method looks the same in every figure."""

    name: str
    style: int
    points: Sequence[Point]
    dashed: bool = False
    hollow: bool = False


@dataclass(frozen=True)
class Axis:
    """Range, title, and whether numbers are shares (shown as percent)."""

    low: float
    high: float
    title: str
    percent: bool = False
    ticks: Sequence[float] = field(default_factory=tuple)

    def at(self, value: float, start: float, end: float) -> float:
        """Position of `value` between `start` and `end`, kept inside."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return start + share * (end - start)

    def label(self, value: float) -> str:
        """A tick's text."""
        return f"{100 * value:.0f}" if self.percent else f"{value:g}"


def nice_axis(values: Iterable[float], title: str, percent: bool = False, zero: bool = False) -> Axis:
    """An axis with round ticks around the values."""
    found = [*values, *([0.0] if zero else [])] or [0.0, 1.0]
    low, high = min(found), max(found)
    span = max(high - low, 0.02 if percent else 1e-6)
    step = next(s * 10.0**e for e in range(-6, 9) for s in (1, 2, 5) if span / (s * 10.0**e) <= 6)
    first, last = int(low // step), int(-(-high // step))
    if first == last:
        last += 1
    ticks = [round(i * step, 9) for i in range(first, last + 1)]
    return Axis(ticks[0], ticks[-1], title, percent, ticks)


def n(value: float) -> str:
    """A coordinate with at most two decimals."""
    return "0" if abs(value) < 0.005 else f"{value:.2f}".rstrip("0").rstrip(".")


def text(x: float, y: float, words: str, anchor: str = "start", css: str = "") -> str:
    """Escaped text."""
    style = f' class="{css}"' if css else ""
    return f'<text x="{n(x)}" y="{n(y)}" text-anchor="{anchor}"{style}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line x1="{n(x1)}" y1="{n(y1)}" x2="{n(x2)}" y2="{n(y2)}" class="{css}"/>'


def mark(x: float, y: float, style: int, size: float = 5.0, title: str = "", hollow: bool = False) -> str:
    """A shape, filled or hollow; colours repeat with another shape."""
    css = f'class="{"o" if hollow else "c"}{style % COLOURS}"'
    shape = SHAPES[(style % COLOURS + style // COLOURS) % len(SHAPES)]
    tip = f"<title>{escape(title)}</title>" if title else ""
    if shape == "circle":
        return f'<circle cx="{n(x)}" cy="{n(y)}" r="{n(size)}" {css}>{tip}</circle>'
    r = size * 1.15
    corners = {
        "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        "triangle": [(0, -1.1), (1.05, 0.85), (-1.05, 0.85)],
        "diamond": [(0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)],
    }[shape]
    points = " ".join(f"{n(x + r * a)},{n(y + r * b)}" for a, b in corners)
    return f'<polygon points="{points}" {css}>{tip}</polygon>'


def svg(height: float, parts: Iterable[str], title: str, summary: str) -> str:
    """The figure with its accessible name and description."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {n(height)}" role="img" class="chart">'
    body = "".join(parts)
    return f"{head}<title>{escape(title)}</title><desc>{escape(summary)}</desc>{body}</svg>"


def legend(series: Sequence[Series], top: float, columns: int = 3) -> tuple[list[str], float]:
    """Entries in columns, filled row by row; and the height they take."""
    width = (WIDTH - 20) / columns
    parts = []
    for i, one in enumerate(series):
        x, y = 16 + (i % columns) * width, top + (i // columns) * LINE
        parts += [mark(x, y, one.style, 4.5, hollow=one.hollow), text(x + 10, y + 4, one.name, css="key")]
    return parts, LINE * -(-len(series) // columns)


def _frame(x: Axis, y: Axis, height: float) -> list[str]:
    """Grid, tick labels and titles of a plot between TOP and `height` - BOTTOM."""
    bottom, right = height - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in y.ticks:
        at = y.at(tick, bottom, TOP)
        parts += [line(LEFT, at, right, at, "grid"), text(LEFT - 6, at + 4, y.label(tick), "end")]
    for tick in x.ticks:
        at = x.at(tick, LEFT, right)
        parts += [line(at, TOP, at, bottom, "grid"), text(at, bottom + 15, x.label(tick), "middle")]
    middle = (TOP + bottom) / 2
    parts.append(text((LEFT + right) / 2, height - 8, x.title, "middle", "axis"))
    parts.append(f'<text x="12" y="{n(middle)}" text-anchor="middle" class="axis" transform="rotate(-90 12 {n(middle)})">{escape(y.title)}</text>')
    return parts


def plot(series: Sequence[Series], x: Axis, y: Axis, title: str, summary: str, *, joined: bool = False, diagonal: bool = False, height: float = 380) -> str:
    """Points with intervals, or joined lines; the diagonal marks equality of both axes."""
    bottom, right = height - BOTTOM, WIDTH - RIGHT
    parts = _frame(x, y, height)
    if diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        parts.append(line(x.at(low, LEFT, right), y.at(low, bottom, TOP), x.at(high, LEFT, right), y.at(high, bottom, TOP), "equal"))
    for one in series:
        places = [(x.at(p.x, LEFT, right), y.at(p.y, bottom, TOP)) for p in one.points]
        if joined and places:
            dash = " dashed" if one.dashed else ""
            route = " ".join(f"{n(a)},{n(b)}" for a, b in places)
            parts.append(f'<polyline points="{route}" class="l{one.style % COLOURS}{dash}"/>')
        for p, (a, b) in zip(one.points, places, strict=True):
            if p.x_range:
                parts.append(line(x.at(p.x_range[0], LEFT, right), b, x.at(p.x_range[1], LEFT, right), b, f"l{one.style % COLOURS}"))
            if p.y_range:
                parts.append(line(a, y.at(p.y_range[0], bottom, TOP), a, y.at(p.y_range[1], bottom, TOP), f"l{one.style % COLOURS}"))
        chosen = places if not joined else places[-1:]
        parts += [mark(a, b, one.style, title=one.name) for a, b in chosen]
    keys, extra = legend(series, height + 10)
    return svg(height + extra + 8, [*parts, *keys], title, summary)


def rows_plot(labels: Sequence[str], series: Sequence[Series], x: Axis, title: str, summary: str) -> str:
    """One line per label; each series has one point per label, its `y` the label's index. Zero is marked where it is inside."""
    left, step = 150, max(20, 7 * len(series) + 4)
    bottom, right = TOP + step * len(labels), WIDTH - RIGHT
    parts = []
    for tick in x.ticks:
        at = x.at(tick, left, right)
        parts += [line(at, TOP, at, bottom, "grid"), text(at, bottom + 15, x.label(tick), "middle")]
    if x.low < 0 < x.high:
        parts.append(line(x.at(0, left, right), TOP, x.at(0, left, right), bottom, "equal"))
    for i, label in enumerate(labels):
        parts += [text(left - 8, TOP + step * (i + 0.5) + 4, label, "end"), line(left, TOP + step * (i + 1), right, TOP + step * (i + 1), "grid")]
    for k, one in enumerate(series):
        for p in one.points:
            a, b = x.at(p.x, left, right), TOP + step * (p.y + 0.5) + 7 * (k - (len(series) - 1) / 2)
            if p.x_range:
                parts.append(line(x.at(p.x_range[0], left, right), b, x.at(p.x_range[1], left, right), b, f"l{one.style % COLOURS}"))
            parts.append(mark(a, b, one.style, 3.6, f"{labels[int(p.y)]}, {one.name}", one.hollow))
    parts.append(text((left + right) / 2, bottom + 32, x.title, "middle", "axis"))
    keys, extra = legend(series, bottom + 52, 2)
    return svg(bottom + 52 + extra, [*parts, *keys], title, summary)


def stacked(labels: Sequence[str], names: Sequence[str], shares: Sequence[Sequence[float]], title: str, summary: str) -> str:
    """Horizontal bars that add up to one, with the share written where it fits."""
    left, step = min(240, max(120, 7 * max(map(len, labels), default=0) + 16)), 30
    right = WIDTH - RIGHT
    parts = []
    for i, label in enumerate(labels):
        top, start = TOP + step * i, float(left)
        parts.append(text(left - 8, top + 16, label, "end"))
        total = sum(shares[i]) or 1.0
        for k, share in enumerate(shares[i]):
            width = (right - left) * share / total
            parts.append(f'<rect x="{n(start)}" y="{n(top)}" width="{n(width)}" height="22" class="c{k % COLOURS} bar"/>')
            if width > 34:
                parts.append(text(start + width / 2, top + 15, f"{100 * share / total:.0f} %", "middle", "inbar"))
            start += width
    keys, extra = legend([Series(name, k, ()) for k, name in enumerate(names)], TOP + step * len(labels) + 12)
    return svg(TOP + step * len(labels) + extra + 12, [*parts, *keys], title, summary)
