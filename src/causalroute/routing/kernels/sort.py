"""The stable sort of (token, choice) pairs by expert: histograms of tiles, a scan over the tiles, a scatter of sorted tiles.

    place(pair) = pairs of smaller experts + pairs of this expert in earlier tiles + pairs of this expert earlier in the tile

Inside a tile the key e * BLOCK + position is sorted: keys are distinct, so the order is stable whatever the sorting network does.

Letters: P = N k pairs, E experts, T tiles of BLOCK pairs; E_PAD is a power of two.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_ids(experts: tl.tensor, at: tl.tensor, pairs: tl.tensor, E: tl.constexpr) -> tl.tensor:
    """Ids of pairs; one outside [0, E), which the caller must not give, goes to the nearest expert, so that nothing is written outside the outputs."""
    return tl.minimum(tl.maximum(tl.load(experts + at, mask=at < pairs, other=0).to(tl.int32), 0), E - 1)


@triton.jit  # specialised on whether 16 divides `pairs`: only then are neighbouring ids known to lie inside together, and loaded together
def histogram_kernel(experts: tl.tensor, histograms: tl.tensor, pairs: tl.tensor, E: tl.constexpr, E_PAD: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """Pairs of each expert in one tile: a row of the (T, E_PAD) histograms."""
    tile = tl.program_id(0).to(tl.int64)
    at = tile * BLOCK + tl.arange(0, BLOCK)
    found = load_ids(experts, at, pairs, E)
    tl.store(histograms + tile * E_PAD + tl.arange(0, E_PAD), tl.histogram(found, E_PAD, mask=at < pairs))


@triton.jit(do_not_specialize=["tiles"])
def scan_kernel(
    histograms: tl.tensor,
    earlier: tl.tensor,
    totals: tl.tensor,
    tiles: tl.tensor,
    E_PAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
) -> None:
    """COLS experts: pairs in earlier tiles (T, E_PAD), and in all of them (E_PAD,)."""
    rows, cols = tl.arange(0, ROWS), tl.program_id(0) * COLS + tl.arange(0, COLS)
    total = tl.zeros((COLS,), tl.int64)
    for start in range(0, tiles, ROWS):
        at = (start + rows).to(tl.int64)[:, None] * E_PAD + cols[None, :]
        inside = (start + rows < tiles)[:, None]
        count = tl.load(histograms + at, mask=inside, other=0)
        tl.store(earlier + at, total[None, :] + tl.cumsum(count, 0) - count, mask=inside)
        total += tl.sum(count, 0)
    tl.store(totals + cols, total)


@triton.jit  # specialised like the histogram
def scatter_kernel(
    experts: tl.tensor,
    histograms: tl.tensor,
    earlier: tl.tensor,
    totals: tl.tensor,
    order: tl.tensor,
    inverse: tl.tensor,
    offsets: tl.tensor,
    pairs: tl.tensor,
    E: tl.constexpr,
    E_PAD: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Sorts one tile and writes both directions of the permutation; the first program writes the offsets too."""
    tile = tl.program_id(0).to(tl.int64)
    within, cols = tl.arange(0, BLOCK), tl.arange(0, E_PAD)
    at = tile * BLOCK + within
    found = tl.where(at < pairs, load_ids(experts, at, pairs, E), E_PAD)  # the end of the last tile sorts to its end
    key = tl.sort(found * BLOCK + within)
    total, own = tl.load(totals + cols), tl.load(histograms + tile * E_PAD + cols)
    ends = tl.cumsum(total, 0)
    first = ends - total + tl.load(earlier + tile * E_PAD + cols) - (tl.cumsum(own, 0) - own)
    expert = key // BLOCK
    inside = expert < E
    place = within + tl.gather(first, tl.where(inside, expert, 0), 0)
    pair = tile * BLOCK + key % BLOCK
    tl.store(order + place, pair, mask=inside)
    tl.store(inverse + pair, place, mask=inside)
    if tile == 0:
        tl.store(offsets + 1 + cols, ends, mask=cols < E)
        tl.store(offsets, 0)
