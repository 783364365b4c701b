"""Compiles the routing kernels for a GPU that need not be there, and reads from the machine code what they will cost.

    python -m benchmarks.compiled --capability 90 --out compiled.json

Counted per kernel and shape: registers, stack, spills, instructions of the hot part (the outermost loop where there is one, else the whole program), and of
those how many each execution pipe takes. The bound in cycles of one SM partition for one warp's pass over the hot part is

    max(all, 2 alu, fma, 8 special, 4 shared)        warp instructions; Hopper issues 1 a cycle and partition, its pipes 32 / 16 / 32 / 4 / 8 lanes

Needs Triton and its compiler for NVIDIA devices, which the wheel for Linux carries; TRITON_INTERPRET must not be 1.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from causalroute.routing.kernels import launch
from causalroute.routing.kernels.launch import Launch

TYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float64": "fp64", "int32": "i32", "int64": "i64", "uint8": "u8"}
ALU = ("ISETP", "FSETP", "FMNMX", "VIMNMX", "IMNMX", "LOP3", "SHF", "SEL", "FSEL", "IADD", "VIADD", "PRMT", "LEA", "PLOP3", "I2F", "F2F", "LOP", "SGXT", "IABS")
FMA = ("FADD", "FMUL", "FFMA", "IMAD", "HADD2", "HFMA2", "HMUL2")
SHARED = ("SHFL", "LDS", "STS", "LDSM", "STSM", "ATOMS")
SHAPES = ((8, 2), (16, 2), (64, 2), (128, 4), (256, 8), (1024, 8))
"""(E, k) of the budgets"""
FEWER = {torch.float16: ((64, 2),), torch.float64: ((8, 2), (16, 2), (256, 8), (1024, 8))}
"""the same of types that fewer use"""
OPTIONS = ("renormalize", "bias", "kinds")
"""ways through the router that a name carries at its end"""


@dataclass(frozen=True)
class Cost:
    """What one compiled kernel needs."""

    registers: int
    stack: int
    """bytes a thread"""
    spills: int
    """instructions that store to or load from the stack"""
    shared: int
    """bytes a program"""
    instructions: int
    """of the hot part"""
    cycles: int
    """bound of the hot part, see the module"""
    load_bits: int
    """widest load from global memory, into registers or shared memory"""
    bound: str
    """the pipe that sets `cycles`"""
    per_pass: int
    """logits or pairs that a warp works on in one pass over the hot part"""


def signature(work: Launch) -> ASTSource:
    """What Triton's own launcher would compile for these arguments."""
    types: dict[str, str] = {}
    constants: dict[str, object] = dict(work.constants)
    for name, value in work.arguments.items():
        if isinstance(value, torch.Tensor):
            types[name] = "*" + TYPES[str(value.dtype).removeprefix("torch.")]
        elif value is None:
            constants[name] = None
        else:
            types[name] = "i32" if value < 2**31 else "i64"
    names = work.kernel.arg_names
    fixed = {parameter.name for parameter in work.kernel.params if not parameter.do_not_specialize}
    sixteens = {name for name, value in work.arguments.items() if isinstance(value, int) and value % 16 == 0 and name in fixed}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name, kind in types.items() if kind.startswith("*") or name in sixteens}
    return ASTSource(work.kernel, {name: types.get(name, "constexpr") for name in names}, constants, aligned)


def compile_launch(work: Launch, capability: int) -> triton.compiler.CompiledKernel:
    """The machine code of one launch."""
    return triton.compile(signature(work), target=GPUTarget("cuda", capability, 32), options=work.options)


@cache
def tool(name: str) -> str:
    """A program of the CUDA tools in the Triton wheel."""
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def disassemble(cubin: bytes) -> tuple[list[tuple[int, str]], str]:
    """(address, instruction) pairs, and the table of resources."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        code, usage = (subprocess.run([tool("cuobjdump"), flag, path], check=True, capture_output=True, text=True).stdout for flag in ("-sass", "-res-usage"))
    return [(int(at, 16), text) for at, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.+?)\s*;", code)], usage


def hot_part(code: list[tuple[int, str]]) -> list[str]:
    """Instructions of the longest backward jump, or all up to the last EXIT."""
    last = max((i for i, (_, text) in enumerate(code) if "EXIT" in text), default=len(code))
    longest = code[: last + 1]
    loops = []
    for end, (at, text) in enumerate(code):
        jump = re.search(r"\bBRA(?:\.\S+)? .*?(?:`\(\S+\)|0x([0-9a-f]+))", text)
        if jump and jump.group(1) and int(jump.group(1), 16) < at:
            loops.append([pair for pair in code[: end + 1] if pair[0] >= int(jump.group(1), 16)])
    return [text for _, text in max(loops, key=len, default=longest)]


def mnemonic(text: str) -> str:
    """An instruction without predicate and operands."""
    return re.sub(r"^@!?U?P\w+\s+", "", text).split()[0]


def operation(text: str) -> str:
    """The name of an instruction, its predicate and suffixes left out."""
    return mnemonic(text).split(".")[0]


def load_width(text: str) -> int:
    """Bits that a thread loads from global memory, 0 for another instruction; the address beside it, [R2.64], has a width of its own."""
    name, *suffixes = mnemonic(text).split(".")
    if name not in ("LDG", "LDGSTS"):
        return 0
    sizes = [int(found[1]) for suffix in suffixes if (found := re.fullmatch(r"[US]?(8|16|64|128|256)", suffix))]
    return sizes[0] if sizes else 32


def pipes(instructions: Iterable[str]) -> dict[str, int]:
    """Cycles that each pipe of a partition needs."""
    names = [operation(text) for text in instructions]
    return {
        "issue": len(names),
        "alu": 2 * sum(name.startswith(ALU) for name in names),
        "fma": sum(name.startswith(FMA) for name in names),
        "special": 8 * sum(name == "MUFU" for name in names),
        "shared": 4 * sum(name in SHARED for name in names),
    }


def cost(work: Launch, capability: int) -> Cost:
    """Compiles and counts."""
    built = compile_launch(work, capability)
    code, usage = disassemble(built.asm["cubin"])
    hot = hot_part(code)
    cycles = pipes(hot)
    bound = max(cycles, key=lambda pipe: cycles[pipe])
    used = dict(re.findall(r"(REG|STACK|SHARED):(\d+)", usage))
    spills = sum(operation(text) in ("STL", "LDL") for _, text in code)
    width = max((load_width(text) for _, text in code), default=0)
    return Cost(int(used["REG"]), int(used["STACK"]), spills, built.metadata.shared, len(hot), cycles[bound], width, bound, tile_size(work))


def tile_size(work: Launch) -> int:
    """Values of a tile by warp: its rows by padded experts or columns, or the pairs of a tile of the sort."""
    sizes = work.constants
    return sizes.get("BLOCK", sizes.get("ROWS", 1) * sizes.get("COLS", sizes.get("E_PAD", 1))) // work.warps


def router_launches(experts: int, k: int, dtype: torch.dtype, option: str = "", tokens: int = 1 << 20) -> dict[str, Launch]:
    """Forward and backward of the router with all its gradients, plain or with one of `OPTIONS`, on tensors without memory."""
    logits = torch.empty(tokens, experts, dtype=dtype, device="meta")
    bias = torch.empty(experts, device="meta") if option == "bias" else None
    table = (torch.empty(2, experts, dtype=torch.bool, device="meta"), torch.empty(tokens, dtype=torch.int64, device="meta"))
    mask = table if option == "kinds" else (None, None)
    (weights, ids, lse, _, prob_sum, z_sum), forward = launch.forward(logits, k, option == "renormalize", bias, *mask)
    gradients = {"dweights": weights, "dlse": None, "dprob_sum": prob_sum, "dz_sum": z_sum}
    _, backward = launch.backward(logits, lse, ids, weights if option == "renormalize" else None, *mask, gradients)
    return {"forward": forward[0], "sum": forward[1], "backward": backward[0]}


def moving_launches(experts: int, k: int, width: int, tokens: int = 1 << 20) -> dict[str, Launch]:
    """The permutation and the moves of bfloat16 rows."""
    _, sort = launch.permutation(torch.empty(tokens, k, dtype=torch.int32, device="meta"), experts)
    x, places = torch.empty(tokens, width, dtype=torch.bfloat16, device="meta"), torch.empty(tokens * k, dtype=torch.int64, device="meta")
    weights = torch.empty(tokens, k, dtype=torch.float32, device="meta")
    spread, moved = launch.movement(launch.move.spread_kernel, x, places, None, k), torch.empty(tokens * k, width, dtype=torch.bfloat16, device="meta")
    gather, dots = launch.movement(launch.move.gather_kernel, moved, places, weights, k), launch.dots(moved, x, places, k, weights.dtype)
    return dict(zip(("histogram", "scan", "scatter"), sort, strict=True)) | {"spread": spread[1][0], "gather": gather[1][0], "dots": dots[1][0]}


def product_launches(experts: int, k: int, width: int, hidden: int, dtype: torch.dtype, tokens: int = 1 << 18) -> dict[str, Launch]:
    """The product that gathers, both of its gradients."""
    x, dout = torch.empty(tokens, width, dtype=dtype, device="meta"), torch.empty(tokens * k, hidden, dtype=dtype, device="meta")
    places, offsets = torch.empty(tokens * k, dtype=torch.int64, device="meta"), torch.empty(experts + 1, dtype=torch.int64, device="meta")
    weight = torch.empty(experts, width, hidden, dtype=dtype, device="meta")
    works = launch.products(x, places, offsets, weight, k), launch.products(dout, None, offsets, weight.transpose(1, 2), 1)
    return {
        "product": works[0][1][0],
        "product dx": works[1][1][0],
        "product dw": launch.product_weights(x, places, offsets, dout, k)[1][0],
    }


def router_cases() -> Iterator[tuple[str, Launch]]:
    """The router: plain for many shapes, and each of its options once; a kernel that is equal to another is left out."""
    shapes = [(dtype, *shape, "") for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64) for shape in FEWER.get(dtype, SHAPES)]
    shapes += [(torch.float32, 100, 5, ""), *((torch.bfloat16, 64, 2, option) for option in OPTIONS), (torch.float64, 64, 2, "renormalize")]
    for dtype, experts, k, option in shapes:
        for kernel, work in router_launches(experts, k, dtype, option).items():
            new = {"forward": True, "sum": (experts, option) == (64, "") and dtype != torch.float16, "backward": option != "bias"}
            if new[kernel]:
                yield f"{kernel} {str(dtype).removeprefix('torch.')} E={experts} k={k} {option}".rstrip(), work


def cases() -> Iterator[tuple[str, Launch]]:
    """All budgeted kernels by name."""
    yield from router_cases()
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        for kernel, work in product_launches(16, 2, 512, 256, dtype).items():
            yield f"{kernel} {str(dtype).removeprefix('torch.')} E=16 D=512 H=256", work
    for experts in (16, 128, 1024):
        for kernel, work in moving_launches(experts, 2, 512).items():
            if kernel in ("histogram", "scan", "scatter") or experts == 16:
                yield f"{kernel} E={experts} k=2", work


def main() -> None:
    """Writes the table of all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=90, help="compute capability, for example 90")
    parser.add_argument("--out", type=Path, help="JSON file; standard output without it")
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose name contains one of these")
    options = parser.parse_args()
    table = {name: asdict(cost(work, options.capability)) for name, work in cases() if any(part in name for part in options.only)}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in table.items())
    text = f'{{\n  "triton": "{triton.__version__}",\n  "capability": {options.capability},\n{lines}\n}}\n'
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
