"""Clock, memory counter and record of the benchmark of the router: what a call costs, whoever provides it.

    milliseconds  median of CUDA events around the call, the L2 cache emptied in between (on a CPU: of the wall clock)
    host          median time until the call returns with an idle device behind it, in microseconds: what Python, dispatch and launches cost
    extra         peak of the device memory during the call, less what was there before and less what the call returns; nothing on a CPU

A provider that fails, or gives wrong numbers, leaves a reason instead of rows, and the others go on.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from causalroute.routing.backend import Backend, has_triton

Step = Callable[[], object]
Run = Callable[..., object]
PASSES = ("forward", "backward", "both")
OWN = ("triton", "reference")
"""providers of this package, which must not fail"""
SECONDS = 0.5
"""of one measurement, about; at least LEAST repeats"""
LEAST = 5


@dataclass(frozen=True)
class Subject:
    """What is done, to what."""

    what: str
    dtype: str
    tokens: int
    experts: int
    k: int
    width: int = 0


@dataclass(frozen=True)
class Row:
    """One measurement."""

    what: str
    step: str
    provider: str
    dtype: str
    tokens: int
    experts: int
    k: int
    width: int
    milliseconds: float
    host_microseconds: float
    extra_bytes: int | None
    gigabytes_per_second: float
    of_copy_rate: float


def own_backend(device: str) -> Backend:
    """The kernels where they can run, and that is in the interpreter too; else the reference."""
    return "triton" if has_triton() and (device == "cuda" or os.environ.get("TRITON_INTERPRET") == "1") else "reference"


def name_of(dtype: torch.dtype) -> str:
    """The name without its module."""
    return str(dtype).removeprefix("torch.")


def place(of: Subject | Row) -> str:
    """Type and sizes, for people."""
    return f"{of.dtype} N={of.tokens} E={of.experts} k={of.k}" + (f" D={of.width}" if of.width else "")


def tensors_of(values: object) -> list[Tensor]:
    """Every tensor of a nest of tuples, lists and dicts."""
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def factors(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Incoming gradients, the same for equal shapes."""
    found = []
    for value in outputs:
        generator = torch.Generator(value.device).manual_seed(1)
        found.append(torch.randn(value.shape, generator=generator, device=value.device, dtype=torch.float32).to(value.dtype))
    return found


def leaves_of(inputs: Sequence[Tensor]) -> list[Tensor]:
    """The same memory, as tensors that want a gradient."""
    return [value.detach().requires_grad_() for value in inputs]


def steps(run: Run, inputs: Sequence[Tensor]) -> dict[str, Step]:
    """The calls that are timed: all three passes, or the forward one alone where no input has a gradient."""
    if not inputs:
        return {"forward": run}
    leaves = leaves_of(inputs)

    def forward() -> list[Tensor]:
        return [value for value in tensors_of(run(*leaves)) if value.requires_grad]

    outputs = forward()
    gradients = factors(outputs)
    return {
        "forward": lambda: run(*inputs),
        "backward": lambda: torch.autograd.grad(outputs, leaves, gradients, retain_graph=True),
        "both": lambda: torch.autograd.grad(forward(), leaves, gradients),
    }


@dataclass
class Bench:
    """Measures on one device, and keeps the rows and the reasons of what is missing."""

    device: str
    repeats: int
    rate: float = 1.0
    rows: list[Row] = field(default_factory=list)
    skipped: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    """(what, provider, reason) -> where"""

    def __post_init__(self) -> None:
        self.flush = torch.empty(256 << 20 if self.device == "cuda" else 1, dtype=torch.uint8, device=self.device)
        self.rate = self.copy_rate()

    def copy_rate(self) -> float:
        """Bytes a second of a copy of 512 MiB (1 MiB on a CPU), read and write counted."""
        source = torch.empty((512 if self.device == "cuda" else 1) << 20, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * source.numel() / (self.milliseconds(lambda: target.copy_(source)) / 1e3)

    def wait(self) -> None:
        """Until the device has nothing left to do."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def milliseconds(self, step: Step) -> float:
        """Of one call; the first one, which compiles, does not count, the second one tells how many fit into the time."""
        step()
        first = self.once(step)
        count = min(self.repeats, max(LEAST, int(SECONDS * 1e3 / max(first, 1e-3))))
        return statistics.median(self.once(step) for _ in range(count))

    def once(self, step: Step) -> float:
        """Milliseconds, with a cold L2 cache on a GPU."""
        self.flush.zero_()
        if self.device != "cuda":
            return clock(step) * 1e3
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def host(self, step: Step) -> float:
        """Microseconds until the call is back."""

        def alone() -> float:
            self.wait()
            return clock(step)

        return statistics.median(alone() for _ in range(min(LEAST, self.repeats))) * 1e6

    def extra(self, step: Step) -> int | None:
        """Bytes beyond inputs and outputs."""
        if self.device != "cuda":
            return None
        self.wait()
        torch.cuda.reset_peak_memory_stats()
        before = requested("current")
        kept = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors_of(step())}
        return requested("peak") - before - sum(kept.values())

    def measured(self, subject: Subject, provider: str, step: str, call: Step, count: int) -> Row:
        """A row for a call that has to move `count` bytes."""
        spent = self.milliseconds(call)
        speed = count / spent * 1e3
        return Row(
            **vars(subject),
            step=step,
            provider=provider,
            milliseconds=spent,
            host_microseconds=self.host(call),
            extra_bytes=self.extra(call),
            gigabytes_per_second=speed / 1e9,
            of_copy_rate=speed / self.rate,
        )

    def take(self, subject: Subject, provider: str, run: Run, inputs: Sequence[Tensor], counts: Sequence[int], check: Step) -> None:
        """Checks and times a provider; `counts` are the bytes of a forward and of a backward pass."""
        with self.sheltered(subject, provider):
            check()
            timed = zip(steps(run, inputs).items(), (*counts, sum(counts)), strict=False)
            self.rows += [self.measured(subject, provider, step, call, count) for (step, call), count in timed]

    @contextmanager
    def sheltered(self, subject: Subject, provider: str) -> Iterator[None]:
        """Turns an error of a provider into a reason."""
        try:
            yield
        except Exception as error:  # whatever a peer throws: its absence is a result, not the end of the run
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self.skipped.setdefault((subject.what, provider, reason), []).append(place(subject))

    def broken(self) -> list[str]:
        """What of this package failed; a device that is too small for a shape is no fault of it."""
        own = [(key, where) for key, where in self.skipped.items() if key[1] in OWN and not key[2].startswith("OutOfMemoryError")]
        return [f"{what} of {provider} at {'; '.join(where)}: {reason}" for (what, provider, reason), where in own]

    def lines(self) -> Iterator[str]:
        """Everything, for people."""
        for r in self.rows:
            extra = "" if r.extra_bytes is None else f", {r.extra_bytes / 2**20:.1f} MiB extra"
            yield f"{r.what:8} {r.step:8} {r.provider:15} {place(r)}: {r.milliseconds:.4f} ms, {r.of_copy_rate:.0%}, host {r.host_microseconds:.0f} us{extra}"
        for (what, provider, reason), where in self.skipped.items():
            yield f"skipped: {what} of {provider} ({len(where)} times): {reason}"


def requested(when: str) -> int:
    """Bytes that tensors asked for, "current" or "peak": the blocks behind them are up to a mebibyte larger."""
    return int(torch.cuda.memory_stats()[f"requested_bytes.all.{when}"])


def clock(step: Step) -> float:
    """Seconds by the wall clock."""
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin
