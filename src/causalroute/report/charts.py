"""Small SVG charts: text in, text out, so equal tables give equal bytes. Colours come from CSS variables and follow light and dark.

Coordinates are in the units of the view box (about 11 px text on a phone). Okabe and Ito's colours, told apart by shape as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from causalroute.report.blocks import visible

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

    def exact(self, value: float) -> str:
        """A value as the tables print it."""
        return f"{round(100 * value, 1) + 0.0:.1f}" if self.percent else f"{round(value, 3) + 0.0:g}"

    def told(self, value: float, around: tuple[float, float] | None) -> str:
        """What a reader who points at a mark is told: `accuracy ID 97.7 % [96.8, 98.6]`."""
        unit = " %" if self.title.endswith(", %") else ""
        interval = f" [{self.exact(around[0])}, {self.exact(around[1])}]" if around else ""
        return f"{self.title.removesuffix(', %')} {self.exact(value)}{unit}{interval}"


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


def quoted(words: str) -> str:
    """Words of the data inside a drawing."""
    return escape(visible(words))


def text(x: float, y: float, words: str, anchor: str = "start", css: str = "") -> str:
    """Escaped text."""
    style = f' class="{css}"' if css else ""
    return f'<text x="{n(x)}" y="{n(y)}" text-anchor="{anchor}"{style}>{quoted(words)}</text>'


def pointed(parts: Iterable[str], told: str) -> str:
    """Parts that say something to a reader who points at them."""
    return f"<g><title>{quoted(told)}</title>{''.join(parts)}</g>"


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line x1="{n(x1)}" y1="{n(y1)}" x2="{n(x2)}" y2="{n(y2)}" class="{css}"/>'


def mark(x: float, y: float, style: int, size: float = 5.0, hollow: bool = False) -> str:
    """A shape, filled or hollow; colours repeat with another shape."""
    css = f'class="{"o" if hollow else "c"}{style % COLOURS}"'
    shape = SHAPES[(style % COLOURS + style // COLOURS) % len(SHAPES)]
    if shape == "circle":
        return f'<circle cx="{n(x)}" cy="{n(y)}" r="{n(size)}" {css}/>'
    r = size * 1.15
    corners = {
        "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        "triangle": [(0, -1.1), (1.05, 0.85), (-1.05, 0.85)],
        "diamond": [(0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)],
    }[shape]
    points = " ".join(f"{n(x + r * a)},{n(y + r * b)}" for a, b in corners)
    return f'<polygon points="{points}" {css}/>'


def svg(height: float, parts: Iterable[str], title: str, summary: str) -> str:
    """The figure with its accessible name and description."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {n(height)}" role="img" class="chart">'
    body = "".join(parts)
    return f"{head}<title>{quoted(title)}</title><desc>{quoted(summary)}</desc>{body}</svg>"


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
    parts.append(f'<text x="12" y="{n(middle)}" text-anchor="middle" class="axis" transform="rotate(-90 12 {n(middle)})">{quoted(y.title)}</text>')
    return parts


def whiskers(p: Point, style: int, x: Axis, y: Axis, at: tuple[float, float], height: float) -> list[str]:
    """The intervals of a point, crossing at `at`."""
    (a, b), bottom, right = at, height - BOTTOM, WIDTH - RIGHT
    found = []
    if p.x_range:
        found.append(line(x.at(p.x_range[0], LEFT, right), b, x.at(p.x_range[1], LEFT, right), b, f"l{style % COLOURS}"))
    if p.y_range:
        found.append(line(a, y.at(p.y_range[0], bottom, TOP), a, y.at(p.y_range[1], bottom, TOP), f"l{style % COLOURS}"))
    return found


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
        for i, (p, (a, b)) in enumerate(zip(one.points, places, strict=True)):
            shown = not joined or i == len(places) - 1  # a curve has one mark, at its end; elsewhere it can be pointed at
            told = f"{one.name}: {x.told(p.x, p.x_range)}, {y.told(p.y, p.y_range)}"
            spot = pointed([*whiskers(p, one.style, x, y, (a, b), height), mark(a, b, one.style)], told)
            parts.append(spot if shown else f'<circle cx="{n(a)}" cy="{n(b)}" r="5" class="spot"><title>{quoted(told)}</title></circle>')
    keys, extra = legend(series, height + 10)
    return svg(height + extra + 8, [*parts, *keys], title, summary)


def rows_plot(labels: Sequence[str], series: Sequence[Series], x: Axis, title: str, summary: str, left: float = 150, least: float = 20) -> str:
    """One line per label, `least` high; each series has one point per label, its `y` the label's index. Zero is marked inside; labels take `left`."""
    step = max(least, 7 * len(series) + 4)
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
            ends = [x.at(end, left, right) for end in p.x_range or ()]
            reach = [line(ends[0], b, ends[1], b, f"l{one.style % COLOURS}")] if ends else []
            parts.append(pointed([*reach, mark(a, b, one.style, 3.6, one.hollow)], f"{labels[int(p.y)]}, {one.name}: {x.told(p.x, p.x_range)}"))
    parts.append(text((left + right) / 2, bottom + 32, x.title, "middle", "axis"))
    keys, extra = legend(series, bottom + 52, 2)
    return svg(bottom + 52 + extra, [*parts, *keys], title, summary)


def heatmap(labels: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], title: str, summary: str, after: int = 0) -> str:
    """Shares as shades with the percent written in them; a gap after the first `after` columns. None: no such share."""
    left, top, step, gap = min(230, max(90, 7 * max(map(len, labels), default=0) + 14)), 66, 24, 12 if after else 0
    width = (WIDTH - RIGHT - left - gap) / max(1, len(columns))
    parts = []
    for k, column in enumerate(columns):
        a = left + width * (k + 0.5) + gap * (0 < after <= k)
        parts.append(f'<text x="{n(a)}" y="{top - 8}" class="key" transform="rotate(-35 {n(a)} {top - 8})">{quoted(column)}</text>')
    for i, label in enumerate(labels):
        parts.append(text(left - 8, top + step * i + 16, label, "end"))
        for k, share in enumerate(values[i]):
            if share is None:
                continue
            a, b = left + width * k + gap * (0 < after <= k), top + step * i
            cell = f'<rect x="{n(a)}" y="{n(b)}" width="{n(width - 1.5)}" height="{step - 1.5}" class="heat" fill-opacity="{n(0.06 + 0.94 * share)}"/>'
            number = [text(a + width / 2 - 0.75, b + 16, f"{100 * share:.0f}", "middle", "on" if share > 0.5 else "")] if width > 22 else []
            parts.append(pointed([cell, *number], f"{label}, {columns[k]}: {100 * share:.1f} %"))
    return svg(top + step * len(labels) + 6, parts, title, summary)
