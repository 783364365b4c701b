"""Moving rows to the places of their experts and back. Each place belongs to one (token, choice) pair, so nothing is added in memory.

    spread   out[inverse[n k + j]] = w_nj x_n               dispatch (w = 1); the backward pass of combine
    gather   out[n] = sum_j w_nj y[inverse[n k + j]]        combine; the backward pass of dispatch (w = 1); j in ascending order
    dots     dw_nj = <y[inverse[n k + j]], dout_n>

Sums are taken in float32 (float64 where the rows or the weights are float64) and rounded once.

Letters: N tokens, K experts per token, D width, ROWS tokens of a tile, COLS columns of a tile.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n"])
def spread_kernel(
    x: tl.tensor,
    inverse: tl.tensor,
    weights: tl.tensor,
    out: tl.tensor,
    n: tl.tensor,
    D: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ACC: tl.constexpr,
) -> None:
    """Reads each row once and writes it to its k places, weighted where weights are given."""
    tokens = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)
    inside = (tokens < n)[:, None] & (cols < D)[None, :]
    row = tl.load(x + tokens[:, None] * D + cols[None, :], mask=inside, other=0.0)
    for j in tl.static_range(K):
        place = tl.load(inverse + tokens * K + j, mask=tokens < n, other=0)
        moved = row
        if weights is not None:
            weight = tl.load(weights + tokens * K + j, mask=tokens < n, other=0.0).to(ACC)
            moved = row.to(ACC) * weight[:, None]
        tl.store(out + place[:, None] * D + cols[None, :], moved.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n"])
def gather_kernel(
    y: tl.tensor,
    inverse: tl.tensor,
    weights: tl.tensor,
    out: tl.tensor,
    n: tl.tensor,
    D: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ACC: tl.constexpr,
) -> None:
    """Adds the k rows of each token in the order of its choices."""
    tokens = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)
    inside = (tokens < n)[:, None] & (cols < D)[None, :]
    total = tl.zeros((ROWS, COLS), ACC)
    for j in tl.static_range(K):
        place = tl.load(inverse + tokens * K + j, mask=tokens < n, other=0)
        row = tl.load(y + place[:, None] * D + cols[None, :], mask=inside, other=0.0).to(ACC)
        if weights is not None:
            row = row * tl.load(weights + tokens * K + j, mask=tokens < n, other=0.0).to(ACC)[:, None]
        total += row
    tl.store(out + tokens[:, None] * D + cols[None, :], total.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n"])
def dots_kernel(
    y: tl.tensor,
    dout: tl.tensor,
    inverse: tl.tensor,
    dweights: tl.tensor,
    n: tl.tensor,
    D: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ACC: tl.constexpr,
) -> None:
    """The gradient of combine by its weights: one program holds ROWS tokens and walks over their columns."""
    tokens = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    j = tl.program_id(1)
    place = tl.load(inverse + tokens * K + j, mask=tokens < n, other=0)
    total = tl.zeros((ROWS, COLS), ACC)
    for start in range(0, D, COLS):
        cols = start + tl.arange(0, COLS)
        inside = (tokens < n)[:, None] & (cols < D)[None, :]
        row = tl.load(y + place[:, None] * D + cols[None, :], mask=inside, other=0.0).to(ACC)
        total += row * tl.load(dout + tokens[:, None] * D + cols[None, :], mask=inside, other=0.0).to(ACC)
    tl.store(dweights + tokens * K + j, tl.sum(total, 1).to(dweights.dtype.element_ty), mask=tokens < n)
