"""Pieces that the routing kernels share: loading a tile of logits, sortable integer keys, the k best of every row.

    key(x) = bits(x) ^ ((bits(x) >> sign) & ~sign bit)      the order of floats as the order of signed integers; its own inverse

bfloat16 and float16 logits leave at least 13 low bits of their float32 image free: 10 of them hold 1023 - id, so that one integer maximum finds
value and id, ties going to the smaller id. Wider logits take two reductions a choice: the largest key, then the smallest id that has it.

Letters: E experts, K experts per token, ROWS tokens of a tile; E_PAD and K_PAD are the next powers of two; ACC is the type of the arithmetic.
"""

from __future__ import annotations

import triton
import triton.language as tl

MINUS_INF = tl.constexpr(float("-inf"))
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
LAST_ID = tl.constexpr(1023)
NOT_ID = tl.constexpr(~1023)
PACKED_SIGN = tl.constexpr(0x7FFFFC00)  # every bit of a float32 but its sign and the 10 that hold the id
TAKEN32 = tl.constexpr(-(2**31))  # below every key: no float that is left after NaN became -inf maps to it
TAKEN64 = tl.constexpr(-(2**63))
MAGNITUDE64 = tl.constexpr(2**63 - 1)


@triton.jit
def inside_tile(start: tl.tensor, n: tl.tensor, E: tl.constexpr, E_PAD: tl.constexpr, ROWS: tl.constexpr) -> tl.tensor:
    """Which places of a tile from token `start` on are logits: (ROWS, E_PAD), or (ROWS, 1) where E fills its columns."""
    inside = (start + tl.arange(0, ROWS) < n)[:, None]
    if E_PAD != E:
        inside = inside & (tl.arange(0, E_PAD) < E)[None, :]
    return inside


@triton.jit
def load_logits(logits: tl.tensor, start: tl.tensor, n: tl.tensor, E: tl.constexpr, E_PAD: tl.constexpr, ROWS: tl.constexpr) -> tl.tensor:
    """(ROWS, E_PAD) logits from token `start` (int64) on, as they are; -inf outside. Offsets inside a tile fit 32 bits."""
    at = tl.arange(0, ROWS)[:, None] * E + tl.arange(0, E_PAD)[None, :]
    return tl.load(logits + start * E + at, mask=inside_tile(start, n, E, E_PAD, ROWS), other=MINUS_INF)


@triton.jit
def mask_logits(
    x: tl.tensor,
    allowed: tl.tensor,
    kinds: tl.tensor,
    start: tl.tensor,
    n: tl.tensor,
    kind_count: tl.tensor,
    E: tl.constexpr,
    E_PAD: tl.constexpr,
    ROWS: tl.constexpr,
) -> tl.tensor:
    """-inf where an expert does not serve the token: by token, or by its kind; a kind outside the table is served by none."""
    if allowed is not None:
        rows, cols = tl.arange(0, ROWS), tl.arange(0, E_PAD)
        inside = inside_tile(start, n, E, E_PAD, ROWS)
        if kinds is not None:
            kind = tl.load(kinds + start + rows, mask=start + rows < n, other=-1).to(tl.int64)
            known = (kind >= 0) & (kind < kind_count)
            served = tl.load(allowed + kind[:, None] * E + cols[None, :], mask=inside & known[:, None], other=0)
        else:
            served = tl.load(allowed + start * E + (rows[:, None] * E + cols[None, :]), mask=inside, other=0)
        x = tl.where(served != 0, x, MINUS_INF)
    return x


@triton.jit
def clean(x: tl.tensor) -> tl.tensor:
    """What the choice sees: NaN is -inf, and +0.0 stands for both zeros."""
    return tl.where(x == x, x, MINUS_INF) + 0.0  # what a maximum does with NaN depends on the version of Triton


@triton.jit
def to_key(x: tl.tensor, ACC: tl.constexpr) -> tl.tensor:
    """Floats to signed integers of the same width and the same order."""
    if ACC.primitive_bitwidth == 64:
        bits = x.to(tl.int64, bitcast=True)
        return bits ^ ((bits >> 63) & MAGNITUDE64)
    else:
        bits = x.to(tl.int32, bitcast=True)
        return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def from_key(key: tl.tensor, ACC: tl.constexpr) -> tl.tensor:
    """The inverse of `to_key`."""
    if ACC.primitive_bitwidth == 64:
        return (key ^ ((key >> 63) & MAGNITUDE64)).to(tl.float64, bitcast=True)
    else:
        return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def pick_packed(x: tl.tensor, E_PAD: tl.constexpr, K: tl.constexpr, K_PAD: tl.constexpr) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """The k best of rows that came from 16-bit floats: ids and values (ROWS, K_PAD), the tile of what was taken, the largest value (ROWS,)."""
    slots = tl.arange(0, K_PAD)[None, :]
    bits = x.to(tl.int32, bitcast=True)
    key = (bits ^ ((bits >> 31) & PACKED_SIGN)) | (tl.arange(0, E_PAD) ^ LAST_ID)[None, :]
    best = tl.max(key, 1)
    top = best
    found = best[:, None] + tl.zeros_like(slots)
    for j in tl.static_range(1, K):
        below = (best - 1)[:, None] - key  # modulo 2^32: as unsigned numbers, keys below `best` come first and in falling order
        best = best - 1 - tl.min(below.to(tl.uint32, bitcast=True), 1).to(tl.int32, bitcast=True)
        found = tl.where(slots == j, best[:, None], found)
    return (found & LAST_ID) ^ LAST_ID, unpack(found), key >= best[:, None], unpack(top)


@triton.jit
def unpack(key: tl.tensor) -> tl.tensor:
    """The float32 value of a packed key."""
    return ((key ^ ((key >> 31) & PACKED_SIGN)) & NOT_ID).to(tl.float32, bitcast=True)


@triton.jit
def pick_wide(
    x: tl.tensor, bias: tl.tensor, E: tl.constexpr, E_PAD: tl.constexpr, K: tl.constexpr, K_PAD: tl.constexpr, ROWS: tl.constexpr, ACC: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Like `pick_packed`, for any type and with a bias on the choice; x is clean."""
    slots, cols = tl.arange(0, K_PAD)[None, :], tl.arange(0, E_PAD)
    TAKEN: tl.constexpr = TAKEN64 if ACC.primitive_bitwidth == 64 else TAKEN32
    key = to_key(x, ACC)
    if bias is not None:
        key = to_key(clean(x + tl.load(bias + cols, mask=cols < E, other=0.0).to(ACC)[None, :]), ACC)
    ids = tl.zeros((ROWS, K_PAD), tl.int32)
    values = tl.zeros((ROWS, K_PAD), ACC)
    for j in tl.static_range(K):
        best = tl.max(key, 1)
        chosen = tl.min(tl.where(key == best[:, None], cols[None, :], E_PAD), 1)
        hit = cols[None, :] == chosen[:, None]
        if bias is not None:
            value = tl.sum(tl.where(hit, x, 0.0), 1)
        else:
            value = from_key(best, ACC)
        key = tl.where(hit, TAKEN, key)
        ids = tl.where(slots == j, chosen[:, None], ids)
        values = tl.where(slots == j, value[:, None], values)
    if bias is not None:
        ids, values = by_value(ids, values, K, K_PAD)
    return ids, values, key == TAKEN, tl.max(x, 1)


@triton.jit
def by_value(ids: tl.tensor, values: tl.tensor, K: tl.constexpr, K_PAD: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Sorts the k choices of a row by descending value, ties to the smaller id; slots from K on stay where they are."""
    slots = tl.arange(0, K_PAD)
    real = slots < K
    before = (values[:, :, None] > values[:, None, :]) | ((values[:, :, None] == values[:, None, :]) & (ids[:, :, None] < ids[:, None, :]))
    rank = tl.sum((before & real[None, :, None]).to(tl.int32), 1)  # (ROWS, K_PAD): how many of the chosen come before each
    there = (rank[:, :, None] == slots[None, None, :]) & real[None, :, None]
    return tl.sum(tl.where(there, ids[:, :, None], 0), 1), tl.sum(tl.where(there, values[:, :, None], 0.0), 1)
