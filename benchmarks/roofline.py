"""Floors of the routing kernels on a GPU, and what their compiled instructions predict; nothing here is timed.

    python -m benchmarks.roofline                     on any machine, from the committed table of compiled instructions
    python -m benchmarks.roofline --docs docs/routing.md --svg docs/routing-floor.svg     writes the page's tables of predictions, and its picture

    floor        bytes / copy rate                    forward b E + 8 k + 4 a token, backward 2 b E + 8 k + 4, b bytes a logit
    instructions warps * cycles of a warp's pass / (4 partitions * multiprocessors * clock)
    prediction   max(floor, instructions)

Two effects are left out, both against the kernels: latency that too few resident programs do not hide, and the launch itself (2 to 3 us each).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.routing_bytes import backward_bytes, compiled_bytes, forward_bytes, layer_kernels
from benchmarks.routing_marks import require, rewritten, table

COPY_RATE = 4.3e12
"""bytes a second that an H200 copies"""
PEAK = 989e12
"""products and additions a second of its tensor cores in bfloat16, by the data sheet"""
EAGER = {8: 184, 16: 340, 64: 1277, 128: 2553}
"""microseconds that the bytes of eager torch take at the copy rate, forward and backward, by the number of experts; one million tokens in bfloat16"""
WIDTHS = (256, 512, 1024, 2048)
PARTITIONS, CLOCK = 132 * 4, 1.755e9
"""of an H200: partitions, cycles a second under load"""
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
TILE = 1024
"""pairs of a tile of the sort"""
BUDGETS = Path(__file__).with_name("routing_budgets.json")


@dataclass(frozen=True)
class Row:
    """Microseconds of one shape."""

    dtype: str
    experts: int
    k: int
    forward_floor: float
    forward: float
    backward_floor: float
    backward: float
    bound: str

    @property
    def share(self) -> float:
        """Forward and backward: floor by prediction."""
        return (self.forward_floor + self.backward_floor) / (self.forward + self.backward)


def floor_us(count: int) -> float:
    """Microseconds to move so many bytes."""
    return count / COPY_RATE * 1e6


def issue_us(cycles: int, passes: float) -> float:
    """Microseconds for so many passes of a warp."""
    return cycles * passes / (PARTITIONS * CLOCK) * 1e6


def padded(experts: int) -> int:
    """The next power of two."""
    return 1 << (experts - 1).bit_length()


def router_rows(budgets: dict[str, Any], tokens: int) -> Iterator[Row]:
    """One row per compiled shape."""
    for name, cost in budgets.items():
        found = re.fullmatch(r"forward (\w+) E=(\d+) k=(\d+)", name)
        if not found:
            continue
        dtype, experts, k = found[1], int(found[2]), int(found[3])
        back = budgets[name.replace("forward", "backward")]
        issue = [issue_us(one["cycles"], tokens * padded(experts) / one["per_pass"]) for one in (cost, back)]
        floors = [floor_us(count(tokens, experts, k, BYTES[dtype])) for count in (forward_bytes, backward_bytes)]
        bound = "bytes" if floors[0] >= issue[0] else cost["bound"]
        yield Row(dtype, experts, k, floors[0], max(floors[0], issue[0]), floors[1], max(floors[1], issue[1]), bound)


def sort_us(budgets: dict[str, Any], pairs: int, experts: int) -> float:
    """Predicted microseconds of the permutation: each of its three kernels by bytes or instructions, whichever takes longer."""
    costs = {name: budgets[f"{name} E={experts} k=2"] for name in ("histogram", "scan", "scatter")}
    cells = max(padded(experts), 16) * -(-pairs // TILE)  # of the scratch tables: 4 bytes of a histogram and 8 of its prefix sums each
    moved = {"histogram": 4 * pairs + 4 * cells, "scatter": 20 * pairs + 12 * cells}
    tiles = {name: max(floor_us(count), issue_us(costs[name]["cycles"], pairs / costs[name]["per_pass"])) for name, count in moved.items()}
    steps = -(-pairs // (TILE * 512))  # passes of the scan, whose 8 warps share the 4 partitions of one multiprocessor
    return sum(tiles.values()) + max(floor_us(12 * cells), steps * costs["scan"]["cycles"] * 2 / CLOCK * 1e6)


def goal(row: Row) -> bool:
    """One of the shapes that have a goal, in bfloat16."""
    return row.dtype == "bfloat16" and row.experts <= 128


def compiled_share(row: Row, tokens: int) -> float:
    """Time that the bytes of a compiled router take, by the predicted time of this one."""
    return floor_us(sum(compiled_bytes(tokens, row.experts, row.k, BYTES[row.dtype]))) / (row.forward + row.backward)


def layer_us(way: str, width: int, pairs: int = 2_000_000) -> float:
    """Predicted microseconds of a layer forward: each kernel by its bytes or its products in bfloat16, whichever take longer."""
    return sum(max(floor_us(count), flops / PEAK * 1e6) for count, flops in layer_kernels(way, pairs, 2, width, width // 2, 16, 2))


def gain(width: int) -> float:
    """Layer of plain torch by that of this package, which gathers inside the first product up to a width of 512."""
    return layer_us("plain", width) / layer_us("fused" if width <= 512 else "moved", width)


def router_table(rows: Sequence[Row]) -> str:
    """Markdown."""
    names = ("dtype", "E, k", "forward floor", "forward predicted", "backward floor", "backward predicted", "floor / predicted", "forward bound by")
    lines = []
    for r in rows:
        times = (f"{value:.1f}" for value in (r.forward_floor, r.forward, r.backward_floor, r.backward))
        lines.append((r.dtype, f"{r.experts}, {r.k}", *times, f"{r.share:.0%}", r.bound))
    return table(names, lines)


def each(values: Iterable[tuple[object, str]], letter: str) -> str:
    """Values of several sizes in a cell."""
    return ", ".join(f"{value} ({letter} = {size})" for size, value in values)


def goals_table(budgets: dict[str, Any]) -> str:
    """What is predicted of every goal of the design, at one million tokens."""
    rows = [row for row in router_rows(budgets, 1 << 20) if goal(row)]
    totals = {row.experts: row.forward + row.backward for row in rows}
    sorts = each(((e, f"{sort_us(budgets, 2_000_000, e):.0f} us") for e in (16, 128, 1024)), "E")
    lines = (
        ("forward + backward by copy rate: E <= 16 >= 80 %, E = 64 >= 70 %, E = 128 >= 60 %", each(((r.experts, f"{r.share:.0%}") for r in rows), "E")),
        ("permutation of 2 M pairs <= 40 us", f"{sorts}, without the launches of its three kernels; with Triton {budgets['triton']} alone, see below"),
        ("extra memory <= (8 k + 4) N + 1 MiB", "held by the sizes of what is allocated; the test of it is in `tests/gpu` and has not been run"),
        ("against eager torch >= 8x", f"by the bytes of eager torch: {each(((e, f'{us / totals[e]:.1f}x') for e, us in EAGER.items()), 'E')}"),
        ("against torch.compile >= 3x", f"by the bytes below: {each(((r.experts, f'{compiled_share(r, 1 << 20):.1f}x') for r in rows), 'E')}"),
        ("N = 4k, graph replay, forward + backward <= 15 us", "three launches, each 2 to 3 us"),
        (
            "layer against plain torch: D <= 512 >= 1.2x, D >= 1024 >= 0.95x",
            f"forward, by the bytes below: {each(((d, f'{gain(d):.2f}x') for d in WIDTHS), 'D')}",
        ),
    )
    return table(("goal of the design", "predicted"), lines)


def figure(rows: Sequence[Row]) -> str:
    """Bars of floor and prediction per shape, as SVG text."""
    left, step, width = 130, 46, 640
    scale = (width - left - 90) / max(row.forward + row.backward for row in rows)
    css = "text{font:12px sans-serif;fill:#444}.floor{fill:#999}.f{fill:#0072b2}.b{fill:#e69f00}@media(prefers-color-scheme:dark){text{fill:#ddd}}"
    parts = [f"<style>{css}</style>"]
    for i, row in enumerate(rows):
        top, at = 40 + i * step, float(left)
        parts.append(f'<text x="{left - 8}" y="{top + 17}" text-anchor="end">{escape(f"E={row.experts}, k={row.k}")}</text>')
        parts.append(f'<rect class="floor" x="{left}" y="{top}" width="{(row.forward_floor + row.backward_floor) * scale:.1f}" height="12"/>')
        for css_class, value in (("f", row.forward), ("b", row.backward)):
            parts.append(f'<rect class="{css_class}" x="{at:.1f}" y="{top + 14}" width="{value * scale:.1f}" height="12"/>')
            at += value * scale
        parts.append(f'<text x="{at + 6:.1f}" y="{top + 24}">{row.forward + row.backward:.0f} us, {row.share:.0%}</text>')
    keys = (("floor", "bytes / copy rate"), ("f", "forward, predicted"), ("b", "backward, predicted"))
    for i, (css_class, words) in enumerate(keys):
        parts.append(f'<rect class="{css_class}" x="{left + 160 * i}" y="12" width="12" height="12"/><text x="{left + 160 * i + 18}" y="22">{words}</text>')
    title = "Predicted time of the router, one million tokens in bfloat16, beside the time to move its bytes (H200); not measured"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {50 + step * len(rows)}" role="img">'
    return f"{head}<title>{title}</title>{''.join(parts)}</svg>\n"


def update(path: Path, budgets: dict[str, Any]) -> None:
    """Writes the tables of predictions."""
    bodies = {"router": router_table(list(router_rows(budgets, 1 << 20))), "goals": goals_table(budgets)}
    require(path, "predicted", bodies)
    path.write_text(rewritten(path.read_text(encoding="utf-8"), "predicted", bodies), encoding="utf-8")


def main() -> None:
    """Prints the tables, and draws the bfloat16 rows where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1 << 20)
    parser.add_argument("--budgets", type=Path, default=BUDGETS, help="output of benchmarks.compiled")
    parser.add_argument("--docs", type=Path, help="Markdown file whose tables of predictions are rewritten, for one million tokens")
    parser.add_argument("--svg", type=Path, help="write the figure here")
    options = parser.parse_args()
    budgets = json.loads(options.budgets.read_text(encoding="utf-8"))
    rows = list(router_rows(budgets, options.tokens))
    print(f"{options.tokens} tokens, microseconds, predicted for an H200 from code of Triton {budgets['triton']}; nothing was timed\n")
    print(router_table(rows), goals_table(budgets), sep="\n\n")
    print("\n| kernel | registers | stack | shared bytes | instructions | cycles | bound | widest load |\n" + "|---" * 8 + "|")
    for name, cost in budgets.items():
        if isinstance(cost, dict):
            print("| " + " | ".join([name, *(str(cost[k]) for k in ("registers", "stack", "shared", "instructions", "cycles", "bound", "load_bits"))]) + " |")
    if options.docs:
        update(options.docs, budgets)
    if options.svg:
        options.svg.write_text(figure([row for row in rows if goal(row)]), encoding="utf-8")


if __name__ == "__main__":
    main()
