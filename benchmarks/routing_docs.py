"""Measured tables of the router, written into the blocks of a Markdown file that are marked "measured"; only rows of a CUDA device are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import routing_marks
from benchmarks.routing_figure import bars
from benchmarks.routing_marks import table
from benchmarks.routing_timing import Row

BLOCKS = ("machine", "goals", "router", "moves")
OWN = "triton"
ROUTERS = ("eager torch", "torch.compile", "triton_kernels")
MOVERS = {"permute": "sort + bincount", "dispatch": "index_select", "combine": "index_add", "layer": "plain torch"}
VERSIONS = ("torch", "triton", "cuda", "python")
PICTURE = "routing-measured.svg"
Key = tuple[str, str, str, int, int, int, int]
"""what, pass, dtype, N, E, k, D"""


def require(path: Path) -> None:
    """Fails before anything is measured where a block is missing."""
    routing_marks.require(path, "measured", BLOCKS)


def update(path: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    """Writes all blocks, and the picture beside the file."""
    if "capability" not in about:
        raise ValueError(f"measured on {about['device']}, which is no CUDA device: its figures do not belong into {path}")
    require(path)
    text = routing_marks.rewritten(path.read_text(encoding="utf-8"), "measured", bodies(rows, about))
    path.write_text(text, encoding="utf-8")
    path.with_name(PICTURE).write_text(picture(rows, about), encoding="utf-8")


def picture(rows: Sequence[Row], about: dict[str, Any], step: str = "both") -> str:
    """Shares of the copy rate, one group of bars per shape and type."""
    chosen = [(f"N={r.tokens} E={r.experts} k={r.k} {r.dtype}", r.provider, r.of_copy_rate) for r in rows if (r.what, r.step) == ("router", step)]
    return bars(chosen, f"Router, {step}: counted bytes by measured time, as a share of the copy rate, on {about['device']}")


def bodies(rows: Sequence[Row], about: dict[str, Any]) -> dict[str, str]:
    """Markdown of every block."""
    found = by_key(rows)
    return {
        "machine": f"**Measured** on {about['device']}: {', '.join(f'{name} {about[name]}' for name in VERSIONS if name in about)}; {copied(about)}.",
        "goals": table(("goal", "measured", "reached"), goals(rows)),
        "router": f"![measured share of the copy rate]({PICTURE})\n\n{router_table(found)}",
        "moves": moves_table(found),
    }


def copied(about: dict[str, Any]) -> str:
    """The copy rate that all shares refer to."""
    return f"it copied {about['copy_gigabytes_per_second'] / 1e3:.2f} TB/s in the same run"


def by_key(rows: Iterable[Row]) -> dict[Key, dict[str, Row]]:
    """What was measured of one thing, by provider."""
    found: dict[Key, dict[str, Row]] = {}
    for r in rows:
        found.setdefault((r.what, r.step, r.dtype, r.tokens, r.experts, r.k, r.width), {})[r.provider] = r
    return found


def ratio(of: dict[str, Row], name: str) -> str:
    """Time of another provider by that of this package."""
    return f"{of[name].milliseconds / of[OWN].milliseconds:.2f}x" if name in of else "-"


def memory(row: Row) -> str:
    """Bytes beyond inputs and outputs, in MiB."""
    return "-" if row.extra_bytes is None else f"{row.extra_bytes / 2**20:.2f}"


def router_table(found: dict[Key, dict[str, Row]]) -> str:
    """One line per type, shape and pass."""
    lines = []
    for (what, step, dtype, tokens, experts, k, _), of in found.items():
        if what == "router" and OWN in of:
            r = of[OWN]
            cells = (f"{r.milliseconds * 1e3:.1f}", f"{r.of_copy_rate:.0%}", *(ratio(of, name) for name in ROUTERS), memory(r), f"{r.host_microseconds:.0f}")
            lines.append((dtype, str(tokens), f"{experts}, {k}", step, *cells))
    return table(("dtype", "N", "E, k", "pass", "us", "of copy rate", *(f"{name} / this" for name in ROUTERS), "extra MiB", "host us"), lines)


def moves_table(found: dict[Key, dict[str, Row]]) -> str:
    """Permutation, moves, layer."""
    lines = []
    for (what, step, dtype, tokens, experts, k, width), of in found.items():
        if what in MOVERS and OWN in of:
            r = of[OWN]
            cells = (f"{r.milliseconds * 1e3:.1f}", f"{r.of_copy_rate:.0%}", ratio(of, MOVERS[what]), ratio(of, "scattermoe"), memory(r))
            lines.append((what, step, dtype, f"{tokens * k}", str(experts), str(width), *cells))
    return table(("what", "pass", "dtype", "pairs", "E", "D", "us", "of copy rate", "torch / this", "scattermoe / this", "extra MiB"), lines)


def goals(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """The goals of the design, and what was reached; large means at least 128 MiB of bfloat16 logits."""
    found = by_key(rows)
    large = {key: of for key, of in found.items() if key[:3] == ("router", "both", "bfloat16") and key[3] * key[4] >= 1 << 26 and OWN in of}
    lines = []
    for words, least, chosen in (
        ("forward + backward by copy rate, E <= 16, >= 80 %", 0.8, lambda e, k: e <= 16),
        ("the same, E = 64, k = 2, >= 70 %", 0.7, lambda e, k: (e, k) == (64, 2)),
        ("the same, E = 128, k = 4, >= 60 %", 0.6, lambda e, k: (e, k) == (128, 4)),
    ):
        lines.append(least_of(words, [of[OWN].of_copy_rate for key, of in large.items() if chosen(key[4], key[5])], least, "{:.0%}"))
    named = {key: of for key, of in large.items() if key[4] <= 128}
    for name, least in (("eager torch", 8.0), ("torch.compile", 3.0)):
        shares = [of[name].milliseconds / of[OWN].milliseconds for of in named.values() if name in of]
        lines.append(least_of(f"against {name}, E <= 128, >= {least:.0f}x", shares, least, "{:.1f}x"))
    extra = [r.extra_bytes / allowed(r) for of in large.values() if (r := of[OWN]).extra_bytes is not None]
    lines.append(least_of("extra memory <= (8 k + 4) N + 1 MiB, as a share of it", extra, 1.0, "{:.0%}", at_most=True))
    return [*lines, *move_goals(found)]


def allowed(row: Row) -> float:
    """Bytes of memory that the router may take beyond inputs and outputs."""
    return (8 * row.k + 4) * row.tokens + 2**20


def move_goals(found: dict[Key, dict[str, Row]]) -> list[tuple[str, str, str]]:
    """Those of permutation, layer and graph."""

    def times(what: str, steps: tuple[str, ...], name: str, low: int = 0, high: int = 1 << 30) -> list[float]:
        chosen = [of for key, of in found.items() if key[0] == what and key[1] in steps and low <= key[6] <= high and {OWN, name} <= of.keys()]
        return [of[name].milliseconds / of[OWN].milliseconds for of in chosen]

    def microseconds(what: str, pairs: int) -> list[float]:
        return [of[OWN].milliseconds * 1e3 for key, of in found.items() if key[0] == what and key[3] * key[5] == pairs and OWN in of]

    passes = ("forward", "both")
    return [
        least_of("permutation of 2 M pairs <= 40 us", microseconds("permute", 2_000_000), 40.0, "{:.1f} us", at_most=True),
        least_of("the same against sort, bincount and cumsum, >= 2x", times("permute", passes, MOVERS["permute"]), 2.0, "{:.1f}x"),
        least_of("layer against plain torch, D <= 512, >= 1.2x", times("layer", passes, "plain torch", high=512), 1.2, "{:.2f}x"),
        least_of("the same, D >= 1024, >= 0.95x", times("layer", passes, "plain torch", low=1024), 0.95, "{:.2f}x"),
        least_of("N = 4096, graph replay, forward + backward <= 15 us", microseconds("graph", 8192), 15.0, "{:.1f} us", at_most=True),
    ]


def least_of(words: str, values: Sequence[float], bound: float, form: str, *, at_most: bool = False) -> tuple[str, str, str]:
    """A line of the goals: the worst of the values decides."""
    if not values:
        return words, "not measured", "-"
    worst = max(values) if at_most else min(values)
    reached = worst <= bound if at_most else worst >= bound
    return words, ", ".join(form.format(value) for value in values), "yes" if reached else "no"
