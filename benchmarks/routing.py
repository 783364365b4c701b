"""Times the router against plain torch, the compiler of torch, and other packages' kernels where they can be imported.

    python -m benchmarks.routing --out benchmarks/out/routing --docs docs/routing.md     on a GPU: measures, and fills the tables of that page in
    python -m benchmarks.routing --out benchmarks/out/routing --cpu-smoke                on any machine: small shapes, for the code path alone

The first takes some ten minutes, most of them for torch.compile; `--dtypes bfloat16` is what the goals need.

Every provider's outputs and gradients are compared with the reference in the same run; one that is wrong, or cannot run, gets a reason instead of figures,
and if it belongs to this package the run ends with an error. Rates are counted bytes by the median time of CUDA events, the L2 cache emptied in between, also
as a share of the copy rate of the same run; beside them the memory beyond inputs and outputs, and the time a call keeps the host. Written: a CSV of all rows,
a JSON of the device, the versions, the copy rate and what was skipped, and one SVG per pass.

Letters: N tokens, E experts, k experts per token.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import importlib.util
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from benchmarks import routing_docs, routing_moves, routing_router
from benchmarks.routing_timing import PASSES, Bench, Row, name_of

from causalroute.routing.backend import has_triton


def machine(bench: Bench) -> dict[str, Any]:
    """What the figures are taken on."""
    found: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version(), "copy_gigabytes_per_second": round(bench.rate / 1e9, 1)}
    if importlib.util.find_spec("triton"):
        found["triton"] = importlib.metadata.version("triton")
    if bench.device == "cuda":
        found |= {"device": torch.cuda.get_device_name(), "capability": torch.cuda.get_device_capability(), "cuda": torch.version.cuda}
    else:
        found |= {"device": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    return found


def write(folder: Path, bench: Bench, about: dict[str, Any]) -> None:
    """CSV, JSON and figures."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "routing.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in bench.rows)
    skipped = [{"what": what, "provider": name, "reason": reason, "where": where} for (what, name, reason), where in bench.skipped.items()]
    (folder / "machine.json").write_text(json.dumps({**about, "skipped": skipped}, indent=2) + "\n", encoding="utf-8")
    for step in PASSES:
        (folder / f"{step}.svg").write_text(routing_docs.picture(bench.rows, about, step), encoding="utf-8")


def smoke(bench: Bench) -> None:
    """Every code path that a CPU has. The compiler's machine code would take a minute, so it stops before that."""
    routing_router.router_rows(bench, routing_router.SMOKE, "aot_eager")
    for pairs, experts, width in routing_moves.SMOKE:
        routing_moves.moving_rows(bench, pairs, experts, width, torch.float32)


def measure(bench: Bench, dtypes: Sequence[str]) -> None:
    """Every size of the design."""
    routing_router.router_rows(bench, {dtype: shapes for dtype, shapes in routing_router.SHAPES.items() if name_of(dtype) in dtypes})
    for pairs, experts, width in routing_moves.SHAPES:
        routing_moves.moving_rows(bench, pairs, experts, width, torch.bfloat16)
    if has_triton():
        routing_router.graph_row(bench)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options, refused where they contradict each other or the machine."""
    names = [name_of(dtype) for dtype in routing_router.SHAPES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--docs", type=Path, help="Markdown file whose measured tables are rewritten")
    parser.add_argument("--repeats", type=int, default=50, help="of one measurement, at most")
    parser.add_argument("--dtypes", nargs="+", default=names, choices=names, help="types of the router's logits")
    parser.add_argument("--cpu-smoke", action="store_true", help="small shapes on the CPU")
    options = parser.parse_args(arguments)
    if options.docs and options.cpu_smoke:
        parser.error("--docs takes figures of a GPU; those of --cpu-smoke mean nothing")
    if not options.cpu_smoke and not torch.cuda.is_available():
        parser.error("no CUDA device: nothing to measure. --cpu-smoke runs the code on small shapes, benchmarks.roofline prints predictions")
    if options.docs:
        routing_docs.require(options.docs)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs everything, prints one line a row, writes the files; 1 where this package failed."""
    options = parse(arguments)
    torch.manual_seed(0)
    bench = Bench(*(("cpu", 3) if options.cpu_smoke else ("cuda", options.repeats)))
    about = machine(bench)
    if options.cpu_smoke:
        smoke(bench)
    else:
        measure(bench, options.dtypes)
    print("\n".join(bench.lines()))
    write(options.out, bench, about)
    if bench.broken():
        print("\n".join(["this package failed, so that no page is written:", *bench.broken()]), file=sys.stderr)
        return 1
    if options.docs:
        routing_docs.update(options.docs, bench.rows, about)
    return 0


if __name__ == "__main__":
    sys.exit(main())
