"""What is launched with which tile: outputs are made here, every launch is a value that can be run, or compiled ahead of time on a machine without a GPU.

The tiles come from a fixed table, never from trials at run time. A thread of the router holds 8 or 16 logits (2 or 8 in float64), which leaves registers
for five such tiles (logits, keys, exponentials, sums of probabilities, counts) and the next logits on their way, without a spill.

Letters: N tokens, E experts, k experts per token, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from causalroute.routing.kernels import move, product, route, sort

PARTIAL_BYTES = 2**20
"""of all chunks' partial sums, at most (twice that for float64)"""
MAX_CHUNKS = 1024
"""about two rounds of four programs on each of 132 multiprocessors"""
SORT_BLOCK = 1024
"""pairs of a tile of the sort"""
INTERPRETED = not isinstance(route.forward_kernel, triton.JITFunction)
"""TRITON_INTERPRET=1 was set when Triton was imported: the kernels run on the CPU, slowly"""


@dataclass(frozen=True)
class Tile:
    """Size of a program."""

    rows: int
    warps: int


@dataclass(frozen=True)
class Launch:
    """One kernel with all it is given."""

    kernel: Any
    """the function that Triton compiles"""
    grid: tuple[int, ...]
    arguments: dict[str, Tensor | int | None]
    """tensors and sizes known at run time; None leaves a part of the kernel out"""
    constants: dict[str, Any]
    """what it is compiled for"""
    warps: int

    @property
    def options(self) -> dict[str, Any]:
        """Options of the compiler; fused multiply-add is named because its default changes between versions of Triton."""
        return {"num_warps": self.warps, "enable_fp_fusion": True}

    def run(self) -> None:
        """Launches on the current stream of the tensors' device."""
        self.kernel[self.grid](**self.arguments, **self.constants, **self.options)


def run_all(launches: list[Launch]) -> None:
    """Runs launches one after another on the device of their tensors."""
    device = next(value.device for value in launches[0].arguments.values() if isinstance(value, Tensor))
    if device.type == "cuda":
        with torch.cuda.device(device):
            for launch in launches:
                launch.run()
    else:
        for launch in launches:
            launch.run()


def accumulator(dtype: torch.dtype) -> Any:
    """The type a kernel computes in, for inputs of `dtype`."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def wide(dtype: torch.dtype) -> torch.dtype:
    """The same for torch."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def router_tile(experts: int, dtype: torch.dtype, *, backward: bool = False, packed: bool = False) -> Tile:
    """The configuration table, by E rounded up, type, pass, and whether the choice goes by packed keys."""
    padded = triton.next_power_of_2(experts)
    values = 16 if packed or (backward and dtype != torch.float16) else 8  # logits of a thread; a backward pass of 16 in float16 spills at E = 64
    if dtype == torch.float64:
        values = 8 if backward else 2  # one load: with 4, the forward pass spills at E = 1024
    if backward:
        warps = 8 if padded >= 1024 else 4
    else:
        warps = 4 if padded <= 128 else 8 if padded == 256 else 16  # the more experts, the fewer chunks fit: then with more warps each
    return Tile(max(32 * values * warps // padded, 1), warps)


def chunk_count(tokens: int, experts: int, rows: int) -> int:
    """Programs of the forward kernel: a function of the shapes alone, small enough for the partial sums."""
    per_chunk = 8 * triton.next_power_of_2(experts) + 8
    return min(triton.cdiv(tokens, rows), PARTIAL_BYTES // per_chunk, MAX_CHUNKS)


def mask_arguments(allowed: Tensor | None, kinds: Tensor | None) -> dict[str, Tensor | int | None]:
    """A bool mask as bytes, with the kind of every token where it goes by kind."""
    return {
        "allowed": None if allowed is None else allowed.view(torch.uint8),
        "kinds": kinds,
        "kind_count": 0 if allowed is None or kinds is None else allowed.shape[0],
    }


def forward(
    logits: Tensor, k: int, renormalize: bool, bias: Tensor | None, allowed: Tensor | None, kinds: Tensor | None
) -> tuple[tuple[Tensor, ...], list[Launch]]:
    """The six outputs of `route`, uninitialised, and the two launches that fill them; at least one token."""
    (tokens, experts), acc = logits.shape, wide(logits.dtype)
    packed = bias is None and logits.dtype.itemsize == 2
    tile = router_tile(experts, logits.dtype, packed=packed)
    chunks = chunk_count(tokens, experts, tile.rows)
    new = logits.new_empty
    out = {"weights": new(tokens, k, dtype=acc), "experts": new(tokens, k, dtype=torch.int32), "lse": new(tokens, dtype=acc)}
    parts = {"prob_parts": new(chunks, experts, dtype=acc), "count_parts": new(chunks, experts, dtype=torch.int32), "z_parts": new(chunks, dtype=acc)}
    sums = {"prob_sum": new(experts, dtype=acc), "counts": new(experts, dtype=torch.int32), "z_sum": new((), dtype=acc)}
    constants = {"E": experts, "E_PAD": triton.next_power_of_2(experts), "K": k, "K_PAD": triton.next_power_of_2(k), "ROWS": tile.rows}
    constants |= {"ACC": accumulator(logits.dtype), "RENORMALIZE": renormalize, "PACKED": packed}
    arguments = {"logits": logits, "bias": bias, "n": tokens, **mask_arguments(allowed, kinds), **out, **parts}
    cols = 16
    final = {"E": experts, "COLS": cols, "ROWS": 64, "ACC": accumulator(logits.dtype)}
    launches = [
        Launch(route.forward_kernel, (chunks,), arguments, constants, tile.warps),
        Launch(route.sum_kernel, (triton.cdiv(experts, cols),), {**parts, **sums, "chunks": chunks}, final, 4),
    ]
    return (*out.values(), sums["counts"], sums["prob_sum"], sums["z_sum"]), launches


def backward(
    logits: Tensor, lse: Tensor, experts: Tensor, weights: Tensor | None, allowed: Tensor | None, kinds: Tensor | None, gradients: dict[str, Tensor | None]
) -> tuple[Tensor, list[Launch]]:
    """The gradient of the logits, uninitialised, and its one launch; `gradients` by the kernel's names, `weights` only after renormalization."""
    (tokens, count), k = logits.shape, experts.shape[1]
    tile = router_tile(count, logits.dtype, backward=True)
    dlogits = torch.empty_like(logits)
    arguments = {"logits": logits, "lse": lse, "experts": experts, "weights": weights, "dlogits": dlogits, "n": tokens}
    arguments |= {**mask_arguments(allowed, kinds), **gradients}
    constants = {"E": count, "E_PAD": triton.next_power_of_2(count), "K": k, "ROWS": tile.rows}
    constants |= {"ACC": accumulator(logits.dtype), "RENORMALIZE": weights is not None}
    return dlogits, [Launch(route.backward_kernel, (triton.cdiv(tokens, tile.rows),), arguments, constants, tile.warps)]


def permutation(experts: Tensor, num_experts: int) -> tuple[tuple[Tensor, ...], list[Launch]]:
    """Order, inverse and offsets, uninitialised, and the three launches that fill them; at least one pair."""
    pairs, padded = experts.numel(), max(triton.next_power_of_2(num_experts), 16)
    tiles = triton.cdiv(pairs, SORT_BLOCK)
    new: Callable[..., Tensor] = experts.new_empty
    order, inverse, offsets = (new(size, dtype=torch.int64) for size in (pairs, pairs, num_experts + 1))
    tables = {"histograms": new(tiles, padded, dtype=torch.int32), "earlier": new(tiles, padded, dtype=torch.int64), "totals": new(padded, dtype=torch.int64)}
    shape = {"E": num_experts, "E_PAD": padded, "BLOCK": SORT_BLOCK}
    out: dict[str, Tensor | int | None] = {"order": order, "inverse": inverse, "offsets": offsets}
    launches = [
        Launch(sort.histogram_kernel, (tiles,), {"experts": experts, "histograms": tables["histograms"], "pairs": pairs}, shape, 4),
        Launch(sort.scan_kernel, (padded // 8,), {**tables, "tiles": tiles}, {"E_PAD": padded, "ROWS": 512, "COLS": 8}, 8),
        Launch(sort.scatter_kernel, (tiles,), {"experts": experts, **tables, **out, "pairs": pairs}, shape, 4),
    ]
    return (order, inverse, offsets), launches


def movement(kernel: Any, rows: Tensor, inverse: Tensor, weights: Tensor | None, k: int) -> tuple[Tensor, list[Launch]]:
    """`spread_kernel` or `gather_kernel` on rows (N, D) or (N k, D): the output, uninitialised, and its launch; at least one row."""
    width, name = rows.shape[1], "x" if kernel is move.spread_kernel else "y"
    tokens = inverse.shape[0] // k
    tile, cols = move_tile(width)
    out = rows.new_empty(tokens * k if name == "x" else tokens, width)
    kind = torch.float64 if torch.float64 in (rows.dtype, None if weights is None else weights.dtype) else torch.float32
    constants = {"D": width, "K": k, "ROWS": tile, "COLS": cols, "ACC": accumulator(kind)}
    arguments = {name: rows, "inverse": inverse, "weights": weights, "out": out, "n": tokens}
    return out, [Launch(kernel, (triton.cdiv(tokens, tile), triton.cdiv(width, cols)), arguments, constants, 4)]


def dots(y: Tensor, dout: Tensor, inverse: Tensor, k: int, dtype: torch.dtype) -> tuple[Tensor, list[Launch]]:
    """The gradient of the weights of combine (N, k), uninitialised, and its launch; at least one row."""
    tokens, width = dout.shape
    rows, cols = move_tile(width)
    dweights = y.new_empty(tokens, k, dtype=dtype)
    acc = accumulator(torch.float64 if torch.float64 in (y.dtype, dtype) else torch.float32)
    arguments: dict[str, Tensor | int | None] = {"y": y, "dout": dout, "inverse": inverse, "dweights": dweights, "n": tokens}
    return dweights, [Launch(move.dots_kernel, (triton.cdiv(tokens, rows), k), arguments, {"D": width, "K": k, "ROWS": rows, "COLS": cols, "ACC": acc}, 4)]


def move_tile(width: int) -> tuple[int, int]:
    """Tokens and columns of a tile: 4096 values, at most 512 columns."""
    cols = min(triton.next_power_of_2(width), 512)
    return max(4096 // cols, 1), cols


def product_tile(size: int) -> int:
    """Columns of a tile of a matrix product: a power of two from 16, the least a tensor core takes, to 64."""
    return min(max(triton.next_power_of_2(size), 16), 64)


def product_work(width: int, dtype: torch.dtype) -> tuple[int, int]:
    """Columns of x of one step of a product, and warps: exact products of wide types are long chains of instructions, whose operands would fill the stack."""
    return (product_tile(width), 4) if dtype.itemsize == 2 else (16, 8)


def products(x: Tensor, order: Tensor | None, offsets: Tensor, weight: Tensor, k: int) -> tuple[Tensor, list[Launch]]:
    """Rows of x (N, D), or (P, D) where they are sorted already, by their experts' matrices (E, D, H) of any strides: (P, H), uninitialised, and its launch."""
    experts, width, hidden = weight.shape
    places, rows, cols = x.shape[0] * k, 64, product_tile(hidden)
    out = x.new_empty(places, hidden)
    arguments: dict[str, Tensor | int | None] = {"x": x, "order": order, "offsets": offsets, "weight": weight, "out": out}
    constants = {"E": experts, "E_PAD": triton.next_power_of_2(experts), "K": k, "D": width, "H": hidden, "ROWS": rows, "COLS": cols}
    constants |= dict(zip(("STRIDE_E", "STRIDE_D", "STRIDE_H"), weight.stride(), strict=True))
    depth, warps = product_work(width, x.dtype)
    constants |= {"DEPTH": depth, "ACC": accumulator(x.dtype)}
    return out, [Launch(product.product_kernel, (triton.cdiv(places, rows) + experts, triton.cdiv(hidden, cols)), arguments, constants, warps)]


def product_weights(x: Tensor, order: Tensor, offsets: Tensor, dout: Tensor, k: int) -> tuple[Tensor, list[Launch]]:
    """The gradient of the matrices (E, D, H), uninitialised, and its launch."""
    experts, width, hidden = offsets.shape[0] - 1, x.shape[1], dout.shape[1]
    depth, cols = product_tile(width), product_tile(hidden)
    dweight = x.new_empty(experts, width, hidden)
    arguments: dict[str, Tensor | int | None] = {"x": x, "order": order, "offsets": offsets, "dout": dout, "dweight": dweight}
    constants = {"K": k, "D": width, "H": hidden, "ROWS": 64, "COLS": cols, "DEPTH": depth, "ACC": accumulator(x.dtype)}
    grid = (experts, triton.cdiv(width, depth), triton.cdiv(hidden, cols))
    return dweight, [Launch(product.product_weight_kernel, grid, arguments, constants, product_work(width, x.dtype)[1])]
