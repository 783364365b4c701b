"""Checks of the kernels that only a device makes meaningful, as functions of the sizes: `test_interpreter.py` runs them small, on any machine."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu

from causalroute.routing import combine, dispatch, dispatch_product, permute, route
from tests.unit.routing_cases import Case, make

BACKEND = "triton"


def mixture(case: Case, x: Tensor, matrices: Tensor, backend: str = BACKEND) -> list[Tensor]:
    """Outputs and gradients of a whole step: choice, permutation, product, combination and both auxiliary sums."""
    leaves = [value.detach().requires_grad_() for value in (case.logits, x, matrices)]
    found = case.run(backend, leaves[0])
    moved = permute(found.experts, len(matrices), backend=backend)  # type: ignore[arg-type]
    inner = gelu(dispatch_product(leaves[1], leaves[2], moved, backend=backend))  # type: ignore[arg-type]
    out = combine(inner, found.weights, moved, backend=backend)  # type: ignore[arg-type]
    wide = torch.promote_types(out.dtype, torch.float32)
    gradients = torch.autograd.grad(out.to(wide).square().sum() + found.prob_sum.square().sum() + found.z_sum, leaves)
    return [value.detach() for value in (*vars(found).values(), moved.order, moved.inverse, moved.offsets, out, *gradients)]


def arguments(tokens: int, experts: int, width: int, hidden: int, dtype: torch.dtype, device: str, *, by_token: bool) -> tuple[Case, Tensor, Tensor]:
    """With renormalized weights, a bias, and a mask by kind of token or by token."""
    case = make(tokens, experts, 2, dtype, device, ugly=False)
    if by_token:
        assert case.allowed is not None
        assert case.kinds is not None
        case = Case(case.logits, 2, True, case.bias, case.allowed[case.kinds.long()])
    generator = torch.Generator().manual_seed(2)
    x, matrices = (torch.randn(shape, generator=generator).to(dtype).to(device) for shape in ((tokens, width), (experts, width, hidden)))
    return case, x, matrices / width**0.5


def assert_runs_agree(runs: int, given: tuple[Case, Tensor, Tensor]) -> None:
    """To the bit."""
    first = mixture(*given)
    for _ in range(runs - 1):
        assert all(torch.equal(a, b) for a, b in zip(first, mixture(*given), strict=True))


def strided(value: Tensor) -> Tensor:
    """The same numbers, every second one of a larger tensor."""
    return torch.stack((value, value), -1)[..., 0]


def assert_strides_do_not_matter(given: tuple[Case, Tensor, Tensor]) -> None:
    """Every tensor that goes in is a view with gaps."""
    case, x, matrices = given
    gaps = {name: value if value is None else strided(value) for name, value in (("bias", case.bias), ("allowed", case.allowed), ("kinds", case.kinds))}
    views = Case(strided(case.logits), case.k, case.renormalize, **gaps)
    assert not views.logits.is_contiguous()
    for ours, expected in zip(mixture(views, strided(x), strided(matrices)), mixture(*given), strict=True):
        assert torch.equal(ours, expected)


def assert_product_of_float64(tokens: int, width: int, hidden: int, device: str) -> None:
    """The product that gathers, and its gradients, with 15 digits."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.rand(tokens, 5, generator=generator).argsort(1)[:, :2].int().to(device)
    x, w = (torch.randn(shape, generator=generator, dtype=torch.float64).to(device) for shape in ((tokens, width), (6, width, hidden)))
    results = []
    for backend in (BACKEND, "reference"):
        a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
        out = dispatch_product(a, b, permute(ids, 6, backend=backend), backend=backend)  # type: ignore[arg-type]
        results.append((out, *torch.autograd.grad(out.square().sum(), (a, b))))
    for ours, expected in zip(*results, strict=True):
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-11 * expected.abs().max().item())


def assert_far_mask(tokens: int, experts: int, device: str) -> None:
    """A mask by token, whose last row lies beyond 2^31 values where N E does."""
    allowed = torch.ones(tokens, experts, device=device, dtype=torch.bool)
    allowed[-1] = False
    allowed[-1, experts - 3] = allowed[-1, 1] = True
    logits = torch.zeros(tokens, experts, device=device, dtype=torch.bfloat16)
    logits[-1, experts - 3] = 2.0
    leaf = logits.requires_grad_()
    found = route(leaf, 2, allowed=allowed, backend=BACKEND)
    assert found.experts[-1].tolist() == [experts - 3, 1]
    assert found.counts[[0, 1, experts - 3]].tolist() == [tokens - 1, tokens, 1]
    (got,) = torch.autograd.grad(found.weights[-1, 0], leaf)
    assert got[-1].nonzero().flatten().tolist() == [1, experts - 3]
    assert got[:-1].count_nonzero() == 0


def assert_far_moves(tokens: int, width: int, device: str) -> None:
    """Each token goes to two of four experts and comes back with half of each: places beyond 2^31 values hold what they should where 2 N D passes that."""
    number = torch.arange(tokens, device=device)
    x = torch.zeros(tokens, width, device=device, dtype=torch.bfloat16)
    x[:, 0], x[:, -1] = number % 251, number % 127 - 63  # whole numbers that bfloat16 holds
    moved = permute(torch.stack((number % 4, (number + 1) % 4), 1).int(), 4, backend=BACKEND)
    token = moved.order // 2
    places = dispatch(x, moved, backend=BACKEND).requires_grad_()
    for column in (0, -1):
        assert torch.equal(places[:, column], x[token, column])
    weights = torch.full((tokens, 2), 0.5, device=device, requires_grad=True)
    out = combine(places, weights, moved, backend=BACKEND)
    assert torch.equal(out, x)
    dplaces, dweights = torch.autograd.grad(out, (places, weights), x)
    assert torch.equal(dplaces[:, 0] * 2, places[:, 0])
    squares = x[:, 0].float().square() + (x[:, -1].float().square() if width > 1 else 0)
    assert torch.equal(dweights, squares[:, None].expand(-1, 2))


def assert_far_permutation(pairs: int, experts: int, device: str) -> None:
    """Ids 0, 1, ... in turn, whose sorted order is known; `experts` divides `pairs`."""
    ids = (torch.arange(pairs, device=device) % experts).to(torch.int8).view(-1, 1)
    moved = permute(ids, experts, backend=BACKEND)
    length = pairs // experts
    assert moved.offsets.tolist() == [length * e for e in range(experts + 1)]
    for e in range(experts):
        assert torch.equal(moved.order[length * e : length * (e + 1)], torch.arange(e, pairs, experts, device=device))
        assert torch.equal(moved.inverse[e::experts], torch.arange(length * e, length * (e + 1), device=device))
