"""The router: one pass forward over the logits, a sum of its partial results, one pass backward.

    forward    s = sum_e exp(x_e - m),  lse = m + log s,  p = exp(x - m) / s,  m = max x;   w_j = p of the j-th choice, or p_j / sum_i p_i
    backward   dx = p (g - <p, g> + dlse + 2 dz lse) + c,     g_e = dprob_sum_e + sum_j [e = i_j] dw_j,     c = 0
               where the weights were renormalized, dw leaves g and c_e = sum_j [e = i_j] w_j (dw_j - <w, dw>)

A program of the forward kernel walks over every `chunks`-th tile and writes one row of partial sums; `sum_kernel` adds the rows in their order. The number of
chunks depends on the shapes alone, so that the results are equal to the bit on every device of a kind. Nothing is atomic.

Letters: N tokens, E experts, K experts per token, ROWS tokens of a tile.
"""

from __future__ import annotations

import triton
import triton.language as tl

from causalroute.routing.kernels.tiles import LN2, LOG2E, MINUS_INF, clean, load_logits, mask_logits, pick_packed, pick_wide


@triton.jit
def store_choice(
    weights: tl.tensor,
    experts: tl.tensor,
    ids: tl.tensor,
    values: tl.tensor,
    top: tl.tensor,
    total: tl.tensor,
    share_of: tl.tensor,
    start: tl.tensor,
    n: tl.tensor,
    K: tl.constexpr,
    K_PAD: tl.constexpr,
    ROWS: tl.constexpr,
    RENORMALIZE: tl.constexpr,
) -> None:
    """Writes ids and weights of a tile; a row without any eligible expert (total 0), or with none among its choices, gets weights 0, one with a NaN NaN."""
    rows, slots = tl.arange(0, ROWS), tl.arange(0, K_PAD)
    if RENORMALIZE:
        first = tl.max(tl.where(slots[None, :] == 0, values, MINUS_INF), 1)
        share = tl.where(slots[None, :] < K, tl.exp2((values - first[:, None]) * LOG2E), 0.0)
        share = share / tl.sum(share, 1)[:, None]
        share = tl.where((first == MINUS_INF)[:, None], 0.0, share)  # a bias of -inf can leave only experts of probability 0 to choose
        share = tl.where((total == total)[:, None], share, total[:, None])
    else:
        share = tl.exp2((values - top[:, None]) * LOG2E) * share_of[:, None]
    share = tl.where((total == 0.0)[:, None], 0.0, share)
    inside = (start + rows < n)[:, None] & (slots < K)[None, :]
    at = start * K + (rows[:, None] * K + slots[None, :])
    tl.store(weights + at, share, mask=inside)
    tl.store(experts + at, ids, mask=inside)


@triton.jit
def steps_of(chunk: tl.tensor, chunks: tl.tensor, n: tl.tensor, ROWS: tl.constexpr) -> tl.tensor:
    """Tiles that a chunk works on; rounding n up in 32 bits would pass their end near 2^31 tokens."""
    tiles = tl.cdiv(n.to(tl.int64), ROWS)
    return tl.cdiv(tiles - chunk, chunks).to(tl.int32)


@triton.jit(do_not_specialize=["n", "kind_count"])
def forward_kernel(
    logits: tl.tensor,
    bias: tl.tensor,
    allowed: tl.tensor,
    kinds: tl.tensor,
    weights: tl.tensor,
    experts: tl.tensor,
    lse: tl.tensor,
    prob_parts: tl.tensor,
    count_parts: tl.tensor,
    z_parts: tl.tensor,
    n: tl.tensor,
    kind_count: tl.tensor,
    E: tl.constexpr,
    E_PAD: tl.constexpr,
    K: tl.constexpr,
    K_PAD: tl.constexpr,
    ROWS: tl.constexpr,
    ACC: tl.constexpr,
    PACKED: tl.constexpr,
    RENORMALIZE: tl.constexpr,
) -> None:
    """Choice, weights and lse of every token; sums of probabilities, counts and lse squared of every chunk."""
    chunk, chunks = tl.program_id(0), tl.num_programs(0)
    rows, cols = tl.arange(0, ROWS), tl.arange(0, E_PAD)
    probs = tl.zeros((ROWS, E_PAD), ACC)
    counts = tl.zeros((ROWS, E_PAD), tl.int32)
    z = tl.zeros((ROWS,), ACC)
    raw = load_logits(logits, chunk.to(tl.int64) * ROWS, n, E, E_PAD, ROWS)
    for step in range(steps_of(chunk, chunks, n, ROWS)):
        start = (chunk + step * chunks).to(tl.int64) * ROWS
        x = mask_logits(raw.to(ACC), allowed, kinds, start, n, kind_count, E, E_PAD, ROWS)
        raw = load_logits(logits, start + chunks.to(tl.int64) * ROWS, n, E, E_PAD, ROWS)  # the next tile is on its way while this one is worked on
        if PACKED:
            ids, values, taken, top = pick_packed(clean(x), E_PAD, K, K_PAD)
        else:
            ids, values, taken, top = pick_wide(clean(x), bias, E, E_PAD, K, K_PAD, ROWS, ACC)
        top = finite(top, ACC)
        e = tl.exp2((x - top[:, None]) * LOG2E)
        total = tl.sum(e, 1)
        alive = total != 0.0  # a NaN is alive, so that it shows
        bits = tl.log2(total)
        share_of = tl.where(alive, tl.exp2(-bits), 0.0)  # 1 / total, without a division
        probs += e * share_of[:, None]
        counts += (taken & (start + rows < n)[:, None]).to(tl.int32)
        row_lse = top + bits * LN2
        z += tl.where(alive, row_lse * row_lse, 0.0)
        tl.store(lse + start + rows, row_lse, mask=start + rows < n)
        store_choice(weights, experts, ids, values, top, total, share_of, start, n, K, K_PAD, ROWS, RENORMALIZE)
    at = chunk * E + cols
    tl.store(prob_parts + at, tl.sum(probs, 0), mask=cols < E)
    tl.store(count_parts + at, tl.sum(counts, 0), mask=cols < E)
    tl.store(z_parts + chunk, tl.sum(z, 0))


@triton.jit
def finite(top: tl.tensor, ACC: tl.constexpr) -> tl.tensor:
    """The row maximum inside the finite numbers: x - top is then -inf (no expert) or inf (an infinite logit), never inf - inf."""
    LARGEST: tl.constexpr = 1.7976931348623157e308 if ACC.primitive_bitwidth == 64 else 3.4028234663852886e38
    return tl.minimum(tl.maximum(top, -LARGEST), LARGEST)


@triton.jit(do_not_specialize=["chunks"])
def sum_kernel(
    prob_parts: tl.tensor,
    count_parts: tl.tensor,
    z_parts: tl.tensor,
    prob_sum: tl.tensor,
    counts: tl.tensor,
    z_sum: tl.tensor,
    chunks: tl.tensor,
    E: tl.constexpr,
    COLS: tl.constexpr,
    ROWS: tl.constexpr,
    ACC: tl.constexpr,
) -> None:
    """Adds the chunks' partial sums: COLS experts a program, the first program z as well."""
    rows, cols = tl.arange(0, ROWS), tl.program_id(0) * COLS + tl.arange(0, COLS)
    probs = tl.zeros((ROWS, COLS), ACC)
    taken = tl.zeros((ROWS, COLS), tl.int32)
    z = tl.zeros((ROWS,), ACC)
    for start in range(0, chunks, ROWS):
        inside = (start + rows < chunks)[:, None] & (cols < E)[None, :]
        at = (start + rows)[:, None] * E + cols[None, :]
        probs += tl.load(prob_parts + at, mask=inside, other=0.0)
        taken += tl.load(count_parts + at, mask=inside, other=0)
        z += tl.load(z_parts + start + rows, mask=start + rows < chunks, other=0.0)
    tl.store(prob_sum + cols, tl.sum(probs, 0), mask=cols < E)
    tl.store(counts + cols, tl.sum(taken, 0), mask=cols < E)
    if tl.program_id(0) == 0:
        tl.store(z_sum, tl.sum(z, 0))


@triton.jit
def weight_gradients(
    experts: tl.tensor,
    weights: tl.tensor,
    dweights: tl.tensor,
    start: tl.tensor,
    n: tl.tensor,
    E_PAD: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    ACC: tl.constexpr,
    RENORMALIZE: tl.constexpr,
) -> tl.tensor:
    """(ROWS, E_PAD): dw at the chosen experts; after renormalization w (dw - <w, dw>), the Jacobian of the k weights applied."""
    rows, cols = tl.arange(0, ROWS), tl.arange(0, E_PAD)
    inside = start + rows < n
    at = start * K + rows * K
    mean = tl.zeros((ROWS,), ACC)
    if RENORMALIZE:
        for j in tl.static_range(K):
            mean += tl.load(weights + at + j, mask=inside, other=0.0) * tl.load(dweights + at + j, mask=inside, other=0.0)
    found = tl.zeros((ROWS, E_PAD), ACC)
    for j in tl.static_range(K):
        dw = tl.load(dweights + at + j, mask=inside, other=0.0)
        if RENORMALIZE:
            dw = tl.load(weights + at + j, mask=inside, other=0.0) * (dw - mean)
        found = tl.where(cols[None, :] == tl.load(experts + at + j, mask=inside, other=0)[:, None], dw[:, None], found)
    return found


@triton.jit(do_not_specialize=["n", "kind_count"])
def backward_kernel(
    logits: tl.tensor,
    allowed: tl.tensor,
    kinds: tl.tensor,
    lse: tl.tensor,
    experts: tl.tensor,
    weights: tl.tensor,
    dweights: tl.tensor,
    dlse: tl.tensor,
    dprob_sum: tl.tensor,
    dz_sum: tl.tensor,
    dlogits: tl.tensor,
    n: tl.tensor,
    kind_count: tl.tensor,
    E: tl.constexpr,
    E_PAD: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    ACC: tl.constexpr,
    RENORMALIZE: tl.constexpr,
) -> None:
    """The gradient of one tile of logits, from the logits and lse alone; a gradient that nobody asked for is None and costs nothing."""
    rows, cols = tl.arange(0, ROWS), tl.arange(0, E_PAD)
    start = tl.program_id(0).to(tl.int64) * ROWS
    x = mask_logits(load_logits(logits, start, n, E, E_PAD, ROWS).to(ACC), allowed, kinds, start, n, kind_count, E, E_PAD, ROWS)
    row_lse = tl.load(lse + start + rows, mask=start + rows < n, other=MINUS_INF)
    alive = row_lse != MINUS_INF
    p = tl.exp2((x - tl.where(alive, row_lse, -MINUS_INF)[:, None]) * LOG2E)  # 0 in a row without any eligible expert
    g = tl.zeros((ROWS, E_PAD), ACC)
    shift = tl.zeros((ROWS,), ACC)
    if dprob_sum is not None:
        g = tl.broadcast_to(tl.load(dprob_sum + cols, mask=cols < E, other=0.0)[None, :], (ROWS, E_PAD))
    if dz_sum is not None:
        shift += 2.0 * tl.load(dz_sum) * tl.where(alive, row_lse, 0.0)
    if dlse is not None:
        shift += tl.load(dlse + start + rows, mask=start + rows < n, other=0.0)
    if dweights is not None:
        chosen = weight_gradients(experts, weights, dweights, start, n, E_PAD, K, ROWS, ACC, RENORMALIZE)
        if not RENORMALIZE:
            g += chosen
    dx = p * (g + (shift - tl.sum(p * g, 1))[:, None])
    if dweights is not None and RENORMALIZE:
        dx += chosen
    inside = (start + rows < n)[:, None] & (cols < E)[None, :]
    tl.store(dlogits + start * E + (rows[:, None] * E + cols[None, :]), dx.to(dlogits.dtype.element_ty), mask=inside)
