"""The benchmark of the router, on tiny shapes: what is compared, what is counted, what is written, and who may fail."""

from __future__ import annotations

import csv
import json
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from benchmarks import roofline, routing, routing_bytes, routing_cpu, routing_moves, routing_router, routing_timing
from benchmarks.routing_timing import Bench, Subject
from torch import Tensor

PEERS = {"triton_kernels": "ModuleNotFoundError: No module named 'triton_kernels'", "scattermoe": "ModuleNotFoundError: No module named 'scattermoe'"}


@pytest.fixture
def bench() -> Bench:
    return Bench("cpu", 1)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference alone: the interpreter of Triton has a test of its own."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


# torch.compile


def counting(graphs: list[Any]) -> Any:
    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    return backend


def test_every_shape_is_compiled_beyond_the_limit_of_dynamo() -> None:
    graphs: list[Any] = []
    shapes = [(4, experts) for experts in range(2, 13)]
    for shape in shapes:
        x = torch.randn(shape)
        for got, wanted in zip(routing_router.compiled(counting(graphs))(x, 2), routing_router.eager(x, 2), strict=True):
            torch.testing.assert_close(got, wanted)
    assert len(graphs) == len(shapes) > torch._dynamo.config.recompile_limit


def test_a_compiled_provider_that_would_fall_back_is_an_error() -> None:
    run = routing_router.compiled(counting([]))

    def all_shapes() -> None:
        for experts in range(2, 13):
            run(torch.randn(4, experts), 2)

    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        all_shapes()
    torch._dynamo.reset()


# the run


@pytest.mark.usefixtures("plain")
def test_smoke_writes_all_files_and_only_missing_packages_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert routing.main(["--out", str(tmp_path), "--cpu-smoke"]) == 0
    rows = list(csv.DictReader((tmp_path / "routing.csv").read_text(encoding="utf-8").splitlines()))
    done = {(row["what"], row["step"], row["provider"]) for row in rows}
    for what, names in {
        "router": ("eager torch", "torch.compile", "reference"),
        "dispatch": ("reference", "index_select"),
        "combine": ("reference", "index_add"),
        "layer": ("reference", "plain torch"),
    }.items():
        assert {(what, step, name) for step in routing_timing.PASSES for name in names} <= done
    assert {("permute", "forward", "reference"), ("permute", "forward", "sort + bincount")} <= done
    assert {row["dtype"] for row in rows} >= {"bfloat16", "float16", "float32"}
    about = json.loads((tmp_path / "machine.json").read_text(encoding="utf-8"))
    assert {entry["provider"]: entry["reason"] for entry in about["skipped"]} == PEERS
    assert all((tmp_path / f"{step}.svg").read_text(encoding="utf-8").startswith("<svg") for step in routing_timing.PASSES)
    assert "torch.compile" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")
def test_the_kernels_are_measured_in_the_interpreter(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = pytest.importorskip("causalroute.routing.kernels.launch", reason="the kernels need the package triton")
    if not launch.INTERPRETED:
        pytest.skip("on a GPU the benchmark itself does it")
    monkeypatch.setattr(launch, "SORT_BLOCK", 16)
    routing_router.router_rows(bench, {torch.bfloat16: ((9, 5, 2),)}, "eager")
    routing_moves.moving_rows(bench, 8, 4, 16, torch.float32)
    assert bench.broken() == []
    assert {row.what for row in bench.rows if row.provider == "triton"} == {"router", "permute", "dispatch", "combine", "layer"}


@pytest.mark.usefixtures("plain")
def test_an_own_provider_that_fails_ends_the_run_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(bench: Bench) -> None:
        with bench.sheltered(Subject("router", "float32", 4, 3, 2), "triton"):
            raise AssertionError("triton weights:\nfar off")

    monkeypatch.setattr(routing, "smoke", wrong)
    assert routing.main(["--out", str(tmp_path), "--cpu-smoke"]) == 1
    (entry,) = json.loads((tmp_path / "machine.json").read_text(encoding="utf-8"))["skipped"]
    assert (entry["reason"], entry["where"]) == ("AssertionError: triton weights: far off", ["float32 N=4 E=3 k=2"])


def test_extra_memory_is_the_peak_beyond_inputs_and_outputs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench.extra(lambda: None) is None
    bench.device = "cuda"
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    stats = {"requested_bytes.all.current": 1000, "requested_bytes.all.peak": 1000 + 600 + 4 + 5000}
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda: stats)
    returned = torch.zeros(150)
    assert bench.extra(lambda: (returned, [returned.view(15, 10)], torch.zeros(1), 7)) == 5000


def test_too_little_memory_is_no_fault_of_the_kernels(bench: Bench) -> None:
    with bench.sheltered(Subject("router", "float32", 4, 3, 2), "triton"):
        raise torch.OutOfMemoryError("tried to allocate")
    assert bench.broken() == []
    assert "OutOfMemoryError: tried to allocate" in "".join(bench.lines())


# numbers are compared


def spoiled(place: int, change: Any) -> routing_router.Router:
    def run(x: Tensor, k: int) -> routing_router.Outputs:
        found = list(routing_router.ours("reference")(x, k))
        found[place] = change(found[place])
        return tuple(found)  # type: ignore[return-value]

    return run


@pytest.mark.parametrize(
    ("place", "change", "words"),
    [
        (0, lambda weights: weights * 1.01, "weights"),
        (0, lambda weights: weights.detach() + 0 * weights, "gradient"),
        (1, lambda ids: ids.flip(1), "other experts"),
        (2, lambda counts: counts + 1, "counts"),
        (3, lambda sums: sums + 0.1, "prob_sum"),
        (4, lambda z: z * 1.1, "z_sum"),
    ],
)
def test_wrong_numbers_are_found(place: int, change: Any, words: str) -> None:
    x = torch.randn(12, 6)
    routing_router.check("triton", routing_router.ours("reference"), x, 2)
    with pytest.raises(AssertionError, match=words):
        routing_router.check("triton", spoiled(place, change), x, 2)


def test_a_wrong_order_of_pairs_and_a_wrong_gradient_are_found() -> None:
    case = routing_moves.make("cpu", 16, 4, 8, torch.float32)
    flat = case.ids.flatten()
    with pytest.raises(AssertionError, match="stable sort"):
        routing_moves.check_order(case, lambda: (flat.argsort(descending=True), flat.bincount(minlength=4).cumsum(0)))
    with pytest.raises(AssertionError, match="gradient 1"):
        routing_moves.agree(lambda x: (2 * x).detach() + 0 * x, lambda x: 2 * x, (torch.randn(3, 2),))


# other packages, by stand-ins with their signatures


class Sparse(NamedTuple):
    vals: Tensor
    indx: Tensor
    mask: object


@pytest.mark.parametrize("form", ["tuple", "attributes"])
def test_the_top_k_of_triton_kernels_is_read_in_both_forms(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def topk(x: Tensor, k: int, apply_softmax: bool) -> object:
        assert apply_softmax
        values, ids = x.topk(k)
        ids, order = ids.sort(1)  # theirs lie in the order of the ids
        weights = values.float().softmax(1).gather(1, order)
        found = Sparse(weights, ids.short(), object())
        return types.SimpleNamespace(**found._asdict()) if form == "attributes" else tuple(found)

    monkeypatch.setitem(sys.modules, "triton_kernels", types.ModuleType("triton_kernels"))
    monkeypatch.setitem(sys.modules, "triton_kernels.topk", types.SimpleNamespace(topk=topk))
    routing_router.check("triton_kernels", routing_router.peer, torch.randn(20, 9), 3)


def parallel_linear(
    inputs: Tensor, weight: Tensor, k: int, sorted_ids: Tensor, order: Tensor, offsets: Tensor, gates: Any = None, grouped_in: bool = False, grouped_out=False
) -> Tensor:
    assert torch.equal(offsets, sorted_ids.bincount(minlength=len(weight)).cumsum(0))
    rows = inputs if grouped_in else inputs[order // k]
    out = torch.einsum("pd,pdh->ph", rows, weight[sorted_ids.long()])
    if not grouped_out:
        out = torch.zeros_like(out).index_copy(0, order, out)
    return out if gates is None else (gates[:, None] @ out.view(*gates.shape, -1)).squeeze(1)


@pytest.mark.usefixtures("plain")
def test_scattermoe_is_a_provider_of_the_layer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scattermoe", types.ModuleType("scattermoe"))
    monkeypatch.setitem(sys.modules, "scattermoe.parallel_experts", types.SimpleNamespace(parallel_linear=parallel_linear))
    routing_moves.moving_rows(bench, 16, 4, 8, torch.float32)
    assert bench.skipped == {}
    assert {row.step for row in bench.rows if row.provider == "scattermoe"} == set(routing_timing.PASSES)


# sizes and bytes


def test_sizes_hold_the_goals_and_the_table_of_predictions() -> None:
    shapes = routing_router.SHAPES[torch.bfloat16]
    for experts, k in ((8, 2), (16, 2), (64, 2), (128, 4)):
        assert any((e, c) == (experts, k) and tokens * e * 2 >= 128 << 20 for tokens, e, c in shapes)
    budgets = json.loads(roofline.BUDGETS.read_text(encoding="utf-8"))
    for predicted in roofline.router_rows(budgets, 1 << 20):
        if predicted.experts == roofline.padded(predicted.experts):
            assert (1 << 20, predicted.experts, predicted.k) in routing_router.SHAPES[getattr(torch, predicted.dtype)]


def test_bytes_of_moves_and_layer() -> None:
    pairs, k, width, hidden, experts, size = 12, 2, 8, 4, 3, 2
    assert routing_bytes.permute_bytes(pairs, experts) == 12 * (4 + 8 + 8) + 4 * 8
    assert routing_bytes.dispatch_bytes(pairs, k, width, size) == (2 * 8 * 18 + 96, 2 * 8 * 18 + 96)
    assert routing_bytes.combine_bytes(pairs, k, width, size) == (2 * 8 * 18 + 144, 2 * 8 * 30 + 192)
    assert routing_bytes.product_bytes(pairs, k, width, hidden, experts, size) == (2 * (96 + 48 + 96) + 96, 2 * (288 + 48 + 96 + 192) + 192)
    fused, moved = (routing_bytes.layer_bytes(2_000_000, 2, 512, 256, 16, 2, fused=way)[0] for way in (True, False))
    assert 0.75 < fused / moved < 0.82
    assert roofline.gain(512) > roofline.gain(1024) > 1


@pytest.mark.parametrize("ways", [(routing_cpu.sparse_model, routing_cpu.looped_model), (routing_cpu.sorted_layer, routing_cpu.looped_layer)])
def test_both_ways_on_a_cpu_compute_the_same(ways: tuple[Any, Any]) -> None:
    shapes = routing_cpu.model_shapes(24, 5, 16, 4) if ways[0] is routing_cpu.sparse_model else routing_cpu.layer_shapes(24, 5, 16, 8)
    assert all(value > 0 for value in routing_cpu.compare(ways, shapes, 2, 1))
