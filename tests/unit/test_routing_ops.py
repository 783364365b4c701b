"""What the Triton backend promises around its numbers: gradients in float64, operators that torch accepts, memory, determinism, a choice without surprises."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch
from tests.conftest import ROOT
from tests.unit.routing_cases import make, moves

from causalroute.routing import backend, combine, dispatch, dispatch_product, load_balance, permute, route, z_loss

pytestmark = pytest.mark.slow

MESSAGE = "the kernels need the package triton"
interpreted = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.skipif(not backend.has_triton() or torch.cuda.is_available(), reason=MESSAGE + " and its interpreter"),
]


def marked(function):  # type: ignore[no-untyped-def]
    for mark in interpreted:
        function = mark(function)
    return function


@marked
@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_the_shipped_kernels_in_float64(renormalize: bool, masked: bool) -> None:
    torch.manual_seed(1)
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    allowed = torch.rand(4, 5) < 0.7 if masked else None
    if allowed is not None:
        allowed[0] = False
        allowed[1:, 0] = True

    def outputs(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = route(x, 2, renormalize=renormalize, allowed=allowed, backend="triton")
        return found.weights, found.prob_sum, found.z_sum, *([] if masked else [found.lse])

    assert torch.autograd.gradcheck(outputs, (logits,), fast_mode=False)


@marked
def test_gradients_of_the_moves_in_float64() -> None:
    torch.manual_seed(2)
    moved = permute(torch.tensor([[2, 0], [1, 2], [0, 1]], dtype=torch.int32), 3, backend="triton")
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    w = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    matrices = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)

    def layer(x: torch.Tensor, w: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
        rows = dispatch_product(x, matrices, moved, backend="triton") + dispatch(x, moved, backend="triton")[:, :1] ** 2
        return combine(rows, w, moved, backend="triton")

    assert torch.autograd.gradcheck(layer, (x, w, matrices), fast_mode=True)


@marked
def test_operators_pass_the_checks_of_torch() -> None:
    from causalroute.routing.autograd import operators

    case = make(6, 5, 2, torch.float32)
    arguments = (case.logits, 2, True, case.bias, case.allowed, case.kinds)
    weights, experts, lse, _, prob_sum, z_sum = operators.route(*arguments)
    order, inverse, offsets = operators.permute(experts, 5)
    x, moved = torch.randn(6, 3), torch.randn(12, 3)
    calls = [
        (operators.route, arguments),
        (operators.route_backward, (case.logits, lse, experts, weights, case.allowed, case.kinds, weights, lse, prob_sum, z_sum)),
        (operators.permute, (experts, 5)),
        (operators.spread, (x, inverse, None, 2)),
        (operators.gather, (moved, inverse, weights, 2)),
        (operators.dots, (moved, x, inverse, weights)),
        (operators.product, (x, order, offsets, torch.randn(5, 3, 4), 2)),
        (operators.product_weight, (x, order, offsets, torch.randn(12, 4), 2)),
    ]
    for operator, given in calls:
        traced = ("test_aot_dispatch_dynamic",) if operator is operators.route else ()
        torch.library.opcheck(operator.default, given, test_utils=("test_schema", "test_faketensor", "test_autograd_registration", *traced))


@marked
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_a_layer_is_traced_whole_by_the_compiler_of_torch(backend: str) -> None:
    def layer(x: torch.Tensor) -> torch.Tensor:
        found = route(x, 2, backend=backend)  # type: ignore[arg-type]
        moved = permute(found.experts, 5, backend=backend)  # type: ignore[arg-type]
        out = combine(dispatch(x, moved, backend=backend), found.weights, moved, backend=backend)  # type: ignore[arg-type]
        return out.sum() + load_balance(found) + z_loss(found)

    a, b = (torch.arange(30.0).sin().view(6, 5).requires_grad_() for _ in range(2))
    compiled, plain = torch.compile(layer, backend="aot_eager", fullgraph=True)(a), layer(b)
    compiled.backward()
    plain.backward()
    torch.testing.assert_close(compiled, plain)
    torch.testing.assert_close(a.grad, b.grad)


@marked
def test_nothing_of_n_times_e_is_saved_beside_the_logits() -> None:
    logits = torch.randn(50, 40, requires_grad=True)
    for renormalize in (False, True):
        saved: list[torch.Tensor] = []

        def keep(value: torch.Tensor, saved: list[torch.Tensor] = saved) -> torch.Tensor:
            saved.append(value)
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            found = route(logits, 2, renormalize=renormalize, backend="triton")
            (found.weights.sum() + found.prob_sum.square().sum() + found.z_sum).backward()
        big = [value for value in saved if value.numel() >= logits.numel()]
        assert all(value.data_ptr() == logits.data_ptr() for value in big)
        assert sum(value.numel() for value in saved if value.data_ptr() != logits.data_ptr()) < 8 * 50


@marked
def test_two_calls_agree_to_the_bit() -> None:
    case = make(30, 12, 3, torch.float32, ugly=False)
    leaves = [case.logits.clone().requires_grad_() for _ in range(2)]
    for found in (runs := [case.run("triton", leaf) for leaf in leaves]):
        (found.weights.square().sum() + found.prob_sum.square().sum() + found.z_sum).backward()
    assert torch.equal(leaves[0].grad, leaves[1].grad)  # type: ignore[arg-type]
    for name in ("weights", "experts", "lse", "counts", "prob_sum", "z_sum"):
        assert torch.equal(getattr(runs[0], name), getattr(runs[1], name))


@marked
def test_two_calls_of_the_movers_agree_to_the_bit() -> None:
    torch.manual_seed(3)
    experts = torch.rand(70, 5).argsort(1)[:, :2].int()
    x, matrices, weights = torch.randn(70, 20), torch.randn(5, 20, 9), torch.rand(70, 2)
    runs = [moves(x, experts, weights, matrices) for _ in range(2)]
    for name, (first, second) in {name: (runs[0][name], runs[1][name]) for name in runs[0]}.items():
        assert torch.equal(first, second), name


@marked
def test_a_second_derivative_is_an_error_and_not_a_wrong_number() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(route(logits, 1, backend="triton").z_sum, logits, create_graph=True)


def test_partial_sums_stay_below_a_mebibyte() -> None:
    launch = pytest.importorskip("causalroute.routing.kernels.launch", reason=MESSAGE)
    for experts in (1, 8, 64, 100, 128, 512, 1024):
        rows = launch.router_tile(experts, torch.bfloat16, packed=True).rows
        chunks = launch.chunk_count(1 << 20, experts, rows)
        assert chunks * (8 * experts + 4) <= 2**20, experts
        assert rows * experts <= 2**13


def test_a_backend_asked_for_by_name_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(backend, "has_triton", lambda: True)
    assert backend.choose("triton", cuda) == "triton"
    with pytest.raises(ValueError, match="needs CUDA tensors, not cpu"):
        backend.choose("triton", cpu)
    monkeypatch.setattr(backend, "has_triton", lambda: False)
    with pytest.raises(RuntimeError, match="needs the package triton"):
        backend.choose("triton", cuda)
    with pytest.raises(ValueError, match="choose from"):
        backend.choose("cuda", cuda)


def test_a_backend_asked_for_by_name_says_so_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(backend, "has_triton", lambda: True)
    backend._say.cache_clear()
    with caplog.at_level(logging.INFO, logger=backend.__name__):
        for name, device in (("reference", "cpu"), ("triton", "cuda"), ("reference", "cpu"), ("triton", "cuda")):
            assert backend.choose(name, torch.device(device)) == name
    backend._say.cache_clear()
    assert [record.getMessage() for record in caplog.records] == ["routing backend on cpu: reference", "routing backend on cuda: triton"]


def test_auto_says_once_what_it_took(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=backend.__name__):
        for installed, device, name in ((True, "cpu", "reference"), (True, "cuda", "triton"), (False, "cuda", "reference")):
            backend._say.cache_clear()
            monkeypatch.setattr(backend, "has_triton", lambda installed=installed: installed)
            assert backend.choose("auto", torch.device(device)) == backend.choose("auto", torch.device(device)) == name
    backend._say.cache_clear()
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO", "WARNING"]


def test_the_package_works_without_triton() -> None:
    code = """
import sys
sys.modules["triton"] = None
import torch
from causalroute.routing import route, permute, dispatch, combine
x = torch.randn(4, 3, requires_grad=True)
found = route(x, 2)
moved = permute(found.experts, 3)
combine(dispatch(x, moved), found.weights, moved).sum().backward()
try: route(x, 2, backend="triton")
except RuntimeError as error: assert "needs the package triton" in str(error)
else: raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}, timeout=120)


def test_the_reference_imports_no_triton() -> None:
    code = "import sys, torch, causalroute.routing as r; r.route(torch.zeros(2, 2), 1); assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}, timeout=120)


@pytest.mark.parametrize("name", ["selection_bias", "allowed", "kinds"])
def test_tensors_of_two_devices_are_named(name: str) -> None:
    other = {"selection_bias": torch.zeros(3), "allowed": torch.ones(4, 3, dtype=torch.bool), "kinds": torch.zeros(4, dtype=torch.int32)}
    given = {name: other[name].to("meta")} | ({"allowed": other["allowed"]} if name == "kinds" else {})
    with pytest.raises(ValueError, match=f"{name} is on meta"):
        route(torch.zeros(4, 3), 1, **given)


def test_movers_of_two_devices_are_named() -> None:
    moved = permute(torch.tensor([[0], [1]]), 2)
    x, matrices, weights = torch.zeros(2, 3), torch.zeros(2, 3, 4), torch.zeros(2, 1)
    with pytest.raises(ValueError, match="x is on meta"):
        dispatch(x.to("meta"), moved)
    for given, name in (((x.to("meta"), matrices), "x"), ((x, matrices.to("meta")), "weight")):
        with pytest.raises(ValueError, match=f"{name} is on meta"):
            dispatch_product(*given, moved)
    for given, name in (((x.to("meta"), weights), "y"), ((x, weights.to("meta")), "weights")):
        with pytest.raises(ValueError, match=f"{name} is on meta"):
            combine(*given, moved)
