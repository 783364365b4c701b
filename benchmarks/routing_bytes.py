"""Bytes that the routing operations have to move: counted, never measured. A pair of numbers is forward and backward.

Ids and the places of a permutation are 4 and 8 bytes, weights 4, a logit or a value b ("size"). Each tensor of a kernel counts once; a row that is gathered
counts every time it is asked for, though a second reading may find it in the cache.

Letters: N tokens, E experts, k experts per token, P = N k pairs, D width, H expert width.
"""

from __future__ import annotations

Kernel = tuple[int, int]
"""bytes, and multiplications and additions"""


def forward_bytes(tokens: int, experts: int, k: int, size: int) -> int:
    """Logits read; weights, ids and lse written."""
    return tokens * (size * experts + 8 * k + 4)


def backward_bytes(tokens: int, experts: int, k: int, size: int) -> int:
    """Logits, ids, lse and the gradient of the weights read; the gradient of the logits written."""
    return tokens * (2 * size * experts + 8 * k + 4)


def compiled_bytes(tokens: int, experts: int, k: int, size: int) -> tuple[int, int]:
    """The router of plain torch after torch.compile, if all that goes by rows is one kernel.

    Forward, the softmax is written in float32, for `topk` and the sum over tokens read it again, and ids go through float32 into a histogram. Backward,
    the gradient of `topk` is a matrix of zeros with k values a row, then read with softmax and logits to write their gradient.
    """
    forward = tokens * ((size + 12) * experts + 28 * k)
    return forward, tokens * ((2 * size + 12) * experts + 16 * k)


def permute_bytes(pairs: int, experts: int) -> int:
    """Ids read; order, inverse and offsets written."""
    return 20 * pairs + 8 * (experts + 1)


def dispatch_bytes(pairs: int, k: int, width: int, size: int) -> tuple[int, int]:
    """Tokens read once, `inverse` read, places written; backward the other way."""
    count = size * width * (pairs // k + pairs) + 8 * pairs
    return count, count


def combine_bytes(pairs: int, k: int, width: int, size: int) -> tuple[int, int]:
    """Places, `inverse` and weights read, tokens written; backward, gradients of places and weights written from the places and the tokens' gradients."""
    tokens = pairs // k
    return size * width * (pairs + tokens) + 12 * pairs, size * width * (2 * pairs + tokens) + 16 * pairs


def product_bytes(pairs: int, k: int, width: int, hidden: int, experts: int, size: int) -> tuple[int, int]:
    """Rows gathered through `order`, matrices read, places written; backward, two products, and the rows' gradients added per token."""
    rows, inner, matrices = pairs * width, pairs * hidden, experts * width * hidden
    forward = size * (rows + inner + matrices) + 8 * pairs
    return forward, size * (3 * rows + rows // k + 2 * inner + 2 * matrices) + 16 * pairs


def layer_kernels(way: str, pairs: int, k: int, width: int, hidden: int, experts: int, size: int) -> list[Kernel]:
    """Forward pass of a layer whose permutation is given: "fused" gathers inside the first product, "moved" before it, "plain" is torch alone."""
    rows, inner, flops = size * pairs * width, size * pairs * hidden, 2 * pairs * width * hidden
    grouped = (rows + inner + size * experts * width * hidden, flops)  # either product on sorted rows
    first = {
        "fused": [(product_bytes(pairs, k, width, hidden, experts, size)[0], flops)],
        "moved": [(dispatch_bytes(pairs, k, width, size)[0], 0), grouped],
        "plain": [(2 * rows + 8 * pairs, 0), grouped],  # index_select
    }
    # weights sorted, rows scaled by them, zeros, and index_add, which reads and writes its target for every row
    scattered = [(16 * pairs, 0), (2 * rows + 4 * pairs, 0), (rows // k, 0), (3 * rows + 8 * pairs, 0)]
    return [*first[way], (2 * inner, 0), grouped, *(scattered if way == "plain" else [(combine_bytes(pairs, k, width, size)[0], 0)])]


def layer_bytes(pairs: int, k: int, width: int, hidden: int, experts: int, size: int, *, fused: bool) -> tuple[int, int]:
    """All kernels of this package's layer; the activation is a kernel of its own."""
    rows, inner, matrices = size * pairs * width, size * pairs * hidden, size * experts * width * hidden
    forward = sum(count for count, _ in layer_kernels("fused" if fused else "moved", pairs, k, width, hidden, experts, size))
    grouped = 2 * (rows + inner + matrices)  # backward, one product for the rows' gradient and one for the matrices'
    first = product_bytes(pairs, k, width, hidden, experts, size)[1] if fused else dispatch_bytes(pairs, k, width, size)[1] + grouped
    return forward, combine_bytes(pairs, k, width, size)[1] + grouped + 3 * inner + first
