"""The first product of the experts with the gather inside: rows go from where the tokens lie into the tensor cores, never through a sorted copy.

    out_p = x[order_p / k] W_e          place p of expert e                       (N k, H)
    dW_e  = sum over its places p, ascending, of x[order_p / k]^T dout_p          (E, D, H)

A tile of places belongs to one expert; a program finds its expert from the offsets, so the host never needs the counts.

Letters: P = N k places, E experts, K experts per token, D width, H expert width; tiles of ROWS places, COLS and DEPTH columns.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_of(offsets: tl.tensor, tile: tl.tensor, E: tl.constexpr, E_PAD: tl.constexpr, ROWS: tl.constexpr) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Expert, first place and end of the places of a tile; an expert of E or more where there are fewer tiles."""
    cols = tl.arange(0, E_PAD)
    start = tl.load(offsets + cols, mask=cols < E, other=0)
    end = tl.load(offsets + 1 + cols, mask=cols < E, other=0)
    tiles = (end - start + ROWS - 1) // ROWS
    after = tl.cumsum(tiles, 0)
    expert = tl.sum((after <= tile).to(tl.int64), 0)
    mine = cols == expert
    first = tl.sum(tl.where(mine, start + (tile - after + tiles) * ROWS, 0), 0)
    return expert, first, tl.sum(tl.where(mine, end, 0), 0)


@triton.jit
def product_kernel(
    x: tl.tensor,
    order: tl.tensor,
    offsets: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    E: tl.constexpr,
    E_PAD: tl.constexpr,
    K: tl.constexpr,
    D: tl.constexpr,
    H: tl.constexpr,
    STRIDE_E: tl.constexpr,
    STRIDE_D: tl.constexpr,
    STRIDE_H: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
    ACC: tl.constexpr,
) -> None:
    """One tile of the product; without `order` the rows of x are sorted already."""
    expert, first, end = tile_of(offsets, tl.program_id(0), E, E_PAD, ROWS)
    if expert < E:
        places = first + tl.arange(0, ROWS)
        inside = places < end
        rows = places
        if order is not None:
            rows = tl.load(order + places, mask=inside, other=0) // K
        columns = tl.program_id(1) * COLS + tl.arange(0, COLS)
        total = tl.zeros((ROWS, COLS), ACC)
        for start in range(0, D, DEPTH):
            depth = start + tl.arange(0, DEPTH)
            a = tl.load(x + rows[:, None] * D + depth[None, :], mask=inside[:, None] & (depth < D)[None, :], other=0.0)
            at = expert * STRIDE_E + depth[:, None] * STRIDE_D + columns[None, :] * STRIDE_H
            b = tl.load(weight + at, mask=(depth < D)[:, None] & (columns < H)[None, :], other=0.0)
            total = tl.dot(a, b, total, input_precision="ieee", out_dtype=ACC)
        tl.store(out + places[:, None] * H + columns[None, :], total.to(out.dtype.element_ty), mask=inside[:, None] & (columns < H)[None, :])


@triton.jit
def product_weight_kernel(
    x: tl.tensor,
    order: tl.tensor,
    offsets: tl.tensor,
    dout: tl.tensor,
    dweight: tl.tensor,
    K: tl.constexpr,
    D: tl.constexpr,
    H: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
    ACC: tl.constexpr,
) -> None:
    """One tile of one expert's matrix: walks over the places of the expert."""
    expert = tl.program_id(0).to(tl.int64)
    depth = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    columns = tl.program_id(2) * COLS + tl.arange(0, COLS)
    end = tl.load(offsets + expert + 1)
    total = tl.zeros((DEPTH, COLS), ACC)
    for start in range(tl.load(offsets + expert), end, ROWS):
        places = start + tl.arange(0, ROWS)
        inside = places < end
        rows = tl.load(order + places, mask=inside, other=0) // K
        a = tl.load(x + rows[:, None] * D + depth[None, :], mask=inside[:, None] & (depth < D)[None, :], other=0.0)
        b = tl.load(dout + places[:, None] * H + columns[None, :], mask=inside[:, None] & (columns < H)[None, :], other=0.0)
        total = tl.dot(tl.trans(a), b, total, input_precision="ieee", out_dtype=ACC)
    at = expert * D * H + depth[:, None] * H + columns[None, :]
    tl.store(dweight + at, total.to(dweight.dtype.element_ty), mask=(depth < D)[:, None] & (columns < H)[None, :])
