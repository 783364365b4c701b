"""Floors of the routing kernels on a GPU, and what their compiled instructions predict; nothing here is timed.

    python -m benchmarks.roofline                     on any machine, from the committed table of compiled instructions
    python -m benchmarks.roofline --svg docs/routing-floor.svg

    floor        bytes / copy rate                    forward b E + 8 k + 4 a token, backward 2 b E + 8 k + 4, b bytes a logit
    instructions warps * cycles of a warp's pass / (4 partitions * multiprocessors * clock)
    prediction   max(floor, instructions)

Two effects are left out, both against the kernels: latency that too few resident programs do not hide, and the launch itself (2 to 3 us each).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

COPY_RATE = 4.3e12
"""bytes a second that an H200 copies"""
PARTITIONS, CLOCK = 132 * 4, 1.755e9
"""of an H200: partitions, cycles a second under load"""
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
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


def forward_bytes(tokens: int, experts: int, k: int, size: int) -> int:
    """Logits read; weights, ids and lse written."""
    return tokens * (size * experts + 8 * k + 4)


def backward_bytes(tokens: int, experts: int, k: int, size: int) -> int:
    """Logits, ids, lse and the gradient of the weights read; the gradient of the logits written."""
    return tokens * (2 * size * experts + 8 * k + 4)


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
    """Predicted microseconds of the permutation: each of its three kernels by bytes or instructions."""
    moved = {"histogram": 4 * pairs, "scatter": 20 * pairs}
    costs = {name: budgets[f"{name} E={experts} k=2"] for name in ("histogram", "scan", "scatter")}
    tiles = {name: max(floor_us(count), issue_us(costs[name]["cycles"], pairs / costs[name]["per_pass"])) for name, count in moved.items()}
    steps = -(-pairs // (1024 * 512))  # passes of the scan, whose 8 warps share the 4 partitions of one multiprocessor
    return sum(tiles.values()) + steps * costs["scan"]["cycles"] * 2 / CLOCK * 1e6


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    names = ("dtype", "E, k", "forward floor", "forward predicted", "backward floor", "backward predicted", "floor / predicted", "forward bound by")
    head = f"| {' | '.join(names)} |\n{'|---' * len(names)}|\n"
    lines = (
        f"| {r.dtype} | {r.experts}, {r.k} | {r.forward_floor:.1f} | {r.forward:.1f} | {r.backward_floor:.1f} | {r.backward:.1f} | {r.share:.0%} | {r.bound} |"
        for r in rows
    )
    return head + "\n".join(lines) + "\n"


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


def main() -> None:
    """Prints the tables, and draws the bfloat16 rows where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1 << 20)
    parser.add_argument("--budgets", type=Path, default=BUDGETS, help="output of benchmarks.compiled")
    parser.add_argument("--svg", type=Path, help="write the figure here")
    options = parser.parse_args()
    budgets = json.loads(options.budgets.read_text(encoding="utf-8"))
    rows = list(router_rows(budgets, options.tokens))
    print(f"{options.tokens} tokens, microseconds, predicted for an H200 from code of Triton {budgets['triton']}; nothing was timed\n")
    print(table(rows))
    print("permutation of 2 M pairs, predicted:", ", ".join(f"E={e}: {sort_us(budgets, 2_000_000, e):.0f} us" for e in (16, 128, 1024)))
    print("\n| kernel | registers | stack | shared bytes | instructions | cycles | bound | widest load |\n" + "|---" * 8 + "|")
    for name, cost in budgets.items():
        if isinstance(cost, dict):
            print("| " + " | ".join([name, *(str(cost[k]) for k in ("registers", "stack", "shared", "instructions", "cycles", "bound", "load_bits"))]) + " |")
    if options.svg:
        options.svg.write_text(figure([row for row in rows if row.dtype == "bfloat16" and row.experts <= 128]), encoding="utf-8")


if __name__ == "__main__":
    main()
