"""Times the router against plain torch, the compiler of torch, and other packages' kernels where they can be imported.

    python -m benchmarks.routing --out benchmarks/out/routing            on a GPU: fills every table of docs/routing.md in, in minutes
    python -m benchmarks.routing --out benchmarks/out/routing --cpu-smoke     on any machine: small shapes, for the code path alone

Every provider's outputs are compared with the reference in the same run; one that is wrong stops the run. Rates are counted bytes by the median time of
CUDA events, the L2 cache emptied in between, also as a share of the copy rate of the same run. Written: CSV of all rows, JSON of the device, the versions and
the copy rate, and one SVG per pass.

Letters: N tokens, E experts, k experts per token.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import importlib.util
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from benchmarks.roofline import backward_bytes, forward_bytes
from benchmarks.routing_figure import bars
from torch import Tensor
from torch.nn.functional import gelu, grouped_mm

from causalroute.routing import combine, dispatch, dispatch_product, permute, route
from causalroute.routing.backend import has_triton

Step = Callable[[], object]
Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
SHAPES = ((1 << 22, 8, 2), (1 << 22, 16, 2), (1 << 20, 64, 2), (1 << 19, 128, 4), (4096, 64, 2))
SMOKE = ((64, 8, 2), (32, 12, 3))
PASSES = ("forward", "backward", "both")


@dataclass(frozen=True)
class Row:
    """One measurement."""

    what: str
    provider: str
    dtype: str
    tokens: int
    experts: int
    k: int
    milliseconds: float
    gigabytes_per_second: float
    of_copy_rate: float


def eager(x: Tensor, k: int) -> Outputs:
    """What a model writes in plain torch: weights, ids, counts, probability sum, z sum."""
    p = x.float().softmax(-1)
    weights, ids = p.topk(k)
    counts = torch.zeros(x.shape[1], device=x.device).scatter_add_(0, ids.flatten(), torch.ones(ids.numel(), device=x.device))
    return weights, ids, counts, p.sum(0), x.float().logsumexp(-1).square().sum()


def ours(backend: str) -> Callable[[Tensor, int], Outputs]:
    """`route` on a backend."""

    def run(x: Tensor, k: int) -> Outputs:
        found = route(x, k, backend=backend)  # type: ignore[arg-type]
        return found.weights, found.experts, found.counts, found.prob_sum, found.z_sum

    return run


def peer(x: Tensor, k: int) -> Outputs:
    """The top-k of triton_kernels, which normalizes the chosen logits alone: softmax and both sums stay with torch."""
    from triton_kernels.topk import topk

    weights, ids = topk(x, k, apply_softmax=True)[:2]
    p = x.float().softmax(-1)
    counts = torch.zeros(x.shape[1], device=x.device).scatter_add_(0, ids.flatten().long(), torch.ones(ids.numel(), device=x.device))
    return weights.float(), ids, counts, p.sum(0), x.float().logsumexp(-1).square().sum()


def providers(device: str) -> dict[str, Callable[[Tensor, int], Outputs]]:
    """What can run here."""
    found: dict[str, Callable[[Tensor, int], Outputs]] = {"eager torch": eager, "reference": ours("reference")}
    if device == "cuda":
        found |= {"torch.compile": torch.compile(eager, dynamic=False)} | ({"triton": ours("triton")} if has_triton() else {})
        if importlib.util.find_spec("triton_kernels"):
            found["triton_kernels"] = peer
    return found


def check(name: str, outputs: Outputs, x: Tensor, k: int) -> None:
    """Stops at wrong numbers; ids of equal logits may differ, what they sum up to may not."""
    expected = ours("reference")(x.double(), k)
    own = (expected[0] / expected[0].sum(1, keepdim=True)) if name == "triton_kernels" else expected[0]
    for what, got, wanted in zip(("weights", "counts", "prob_sum", "z_sum"), (outputs[0], *outputs[2:]), (own, *expected[2:]), strict=True):
        loose = x.shape[0] * 1e-3 if what == "counts" and name != "triton" else 1e-3
        torch.testing.assert_close(got.double(), wanted.double(), rtol=1e-3, atol=loose, msg=lambda text, what=what: f"{name} {what}: {text}")


def loss_of(outputs: Outputs) -> Tensor:
    """Touches every differentiable output."""
    return outputs[0].square().sum() + outputs[3].square().sum() * 1e-6 + outputs[4] * 1e-3


def steps(run: Callable[[Tensor, int], Outputs], x: Tensor, k: int) -> dict[str, Step]:
    """The three timed calls."""
    leaf = x.clone().requires_grad_()
    outputs = run(leaf, k)
    gradients = [torch.randn_like(value) for value in (outputs[0], outputs[3], outputs[4])]

    def backward() -> object:
        return torch.autograd.grad((outputs[0], outputs[3], outputs[4]), leaf, gradients, retain_graph=True)

    def both() -> object:
        found = run(leaf, k)
        return torch.autograd.grad((found[0], found[3], found[4]), leaf, gradients)

    return {"forward": lambda: run(x, k), "backward": backward, "both": both}


def median_ms(step: Step, device: str, repeats: int) -> float:
    """Milliseconds of one call; on a GPU by events, with a cold L2 cache."""
    step()
    found = []
    flush = torch.empty(256 << 20 if device == "cuda" else 1, dtype=torch.uint8, device=device)
    for _ in range(repeats):
        flush.zero_()
        if device == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            step()
            end.record()
            end.synchronize()
            found.append(start.elapsed_time(end))
        else:
            begin = time.perf_counter()
            step()
            found.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(found)


def copy_rate(device: str, repeats: int) -> float:
    """Bytes a second of a copy of 512 MiB (1 MiB on a CPU), read and write counted."""
    source = torch.empty((512 if device == "cuda" else 1) << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / (median_ms(lambda: target.copy_(source), device, repeats) / 1e3)


def router_rows(device: str, shapes: tuple[tuple[int, int, int], ...], dtypes: tuple[torch.dtype, ...], rate: float, repeats: int) -> Iterator[Row]:
    """Router: every provider, shape, type and pass."""
    for dtype in dtypes:
        for tokens, experts, k in shapes:
            x = torch.randn(tokens, experts, device=device).to(dtype)
            size = (forward_bytes(tokens, experts, k, dtype.itemsize), backward_bytes(tokens, experts, k, dtype.itemsize))
            for name, run in providers(device).items():
                check(name, run(x, k), x, k)
                for (what, step), count in zip(steps(run, x, k).items(), (*size, sum(size)), strict=True):
                    spent = median_ms(step, device, repeats)
                    speed = count / spent * 1e3
                    yield Row(what, name, str(dtype).removeprefix("torch."), tokens, experts, k, spent, speed / 1e9, speed / rate)


def moving_rows(device: str, pairs: int, experts: int, width: int, rate: float, repeats: int) -> Iterator[Row]:
    """Permutation, moves and a whole layer with k = 2, against what torch offers for the same result; bytes as read and written once."""
    tokens, hidden, k = pairs // 2, width // 2, 2
    ids = torch.rand(tokens, experts, device=device).argsort(1)[:, :k].int()
    x, weights = torch.randn(tokens, width, device=device).bfloat16(), torch.rand(tokens, k, device=device)
    a, b = (torch.randn(experts, *shape, device=device).div(shape[0] ** 0.5).bfloat16() for shape in ((width, hidden), (hidden, width)))
    moved = permute(ids, experts)
    rows, token, ends = dispatch(x, moved), moved.order // k, moved.offsets[1:].int()
    scale = weights.flatten()[moved.order, None].bfloat16()

    def layer() -> Tensor:
        return combine(grouped_mm(gelu(dispatch_product(x, a, moved)), b, offs=ends), weights, moved)

    def plain_layer() -> Tensor:
        y = grouped_mm(gelu(grouped_mm(x.index_select(0, token), a, offs=ends)), b, offs=ends)
        return torch.zeros_like(x).index_add_(0, token, y * scale)

    assert torch.equal(moved.order, torch.sort(ids.flatten(), stable=True).indices)
    torch.testing.assert_close(layer(), plain_layer(), rtol=5e-2, atol=5e-2)
    calls: dict[tuple[str, str], tuple[Step, int]] = {
        ("permute", "this package"): (lambda: permute(ids, experts), 24 * pairs),
        ("permute", "sort + bincount"): (lambda: (ids.flatten().sort(stable=True), ids.flatten().bincount(minlength=experts).cumsum(0)), 24 * pairs),
        ("dispatch", "this package"): (lambda: dispatch(x, moved), 3 * width * pairs),
        ("dispatch", "index_select"): (lambda: x.index_select(0, token), 3 * width * pairs),
        ("combine", "this package"): (lambda: combine(rows, weights, moved), 3 * width * pairs),
        ("combine", "index_add"): (lambda: torch.zeros_like(x).index_add_(0, token, rows * scale), 3 * width * pairs),
        ("layer", "this package"): (layer, 4 * (width + hidden) * pairs),
        ("layer", "index_select + grouped_mm + index_add"): (plain_layer, 4 * (width + hidden) * pairs),
    }
    for (what, name), (step, count) in calls.items():
        spent = median_ms(step, device, repeats)
        yield Row(what, name, "bfloat16", tokens, experts, k, spent, count / spent / 1e6, count / spent * 1e3 / rate)


def graph_row(rate: float, repeats: int) -> Row:
    """Forward and backward of 4096 tokens, replayed from a CUDA graph."""
    x, run = torch.randn(4096, 64, device="cuda", dtype=torch.bfloat16), ours("triton")
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        step = steps(run, x, 2)["both"]
        step()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        step()
    spent = median_ms(graph.replay, "cuda", repeats)
    speed = (forward_bytes(4096, 64, 2, 2) + backward_bytes(4096, 64, 2, 2)) / spent * 1e3
    return Row("graph replay", "triton", "bfloat16", 4096, 64, 2, spent, speed / 1e9, speed / rate)


def machine(device: str, rate: float) -> dict[str, object]:
    """What the figures were taken on."""
    found: dict[str, object] = {"torch": torch.__version__, "python": platform.python_version(), "copy_gigabytes_per_second": round(rate / 1e9, 1)}
    if importlib.util.find_spec("triton"):
        found["triton"] = importlib.metadata.version("triton")
    if device == "cuda":
        found |= {"device": torch.cuda.get_device_name(), "capability": torch.cuda.get_device_capability(), "cuda": torch.version.cuda}
    else:
        found |= {"device": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    return found


def write(folder: Path, rows: list[Row], about: dict[str, object]) -> None:
    """CSV, JSON and figures."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "routing.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    (folder / "machine.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    for what in PASSES:
        chosen = [(f"N={r.tokens} E={r.experts} k={r.k} {r.dtype}", r.provider, r.of_copy_rate) for r in rows if r.what == what]
        (folder / f"{what}.svg").write_text(bars(chosen, f"Router, {what}: share of the copy rate on {about['device']}"), encoding="utf-8")


def main() -> None:
    """Runs everything, prints one line a row, writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--cpu-smoke", action="store_true", help="small shapes on the CPU")
    options = parser.parse_args()
    if not options.cpu_smoke and not torch.cuda.is_available():
        parser.error("no CUDA device: nothing to measure. --cpu-smoke runs the code on small shapes, benchmarks.roofline prints predictions")
    device, repeats = ("cpu", 3) if options.cpu_smoke else ("cuda", options.repeats)
    torch.manual_seed(0)
    rate = copy_rate(device, repeats)
    rows: list[Row] = []
    dtypes = (torch.bfloat16,) if options.cpu_smoke else (torch.bfloat16, torch.float32)
    rows += router_rows(device, SMOKE if options.cpu_smoke else SHAPES, dtypes, rate, repeats)
    for experts, width in ((8, 16),) if options.cpu_smoke else ((16, 512), (128, 1024)):
        rows += moving_rows(device, 64 if options.cpu_smoke else 2_000_000, experts, width, rate, repeats)
    if device == "cuda" and has_triton():
        rows.append(graph_row(rate, repeats))
    for row in rows:
        print(f"{row.what:12} {row.provider:38} {row.dtype} N={row.tokens} E={row.experts} k={row.k}: {row.milliseconds:.4f} ms, {row.of_copy_rate:.0%}")
    write(options.out, rows, machine(device, rate))


if __name__ == "__main__":
    main()
