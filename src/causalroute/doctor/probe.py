"""What has to be imported to be known, looked at in a process of its own: `python -m causalroute.doctor.probe WHAT [MODULE ...]`.

Prints one JSON object a line: what is about to be done first, what came of it after, so that the parent knows what killed a process that died.
"""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from typing import Any


def imports(modules: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Imports each module: its error, empty where there is none."""
    for name in modules:
        yield {"doing": f"import {name}"}
        yield {"module": name, "error": _error(lambda name=name: import_module(name))}


def _error(work: Any) -> str:
    try:
        work()
    except BaseException as error:  # a library may even call sys.exit when it is imported
        return f"{type(error).__name__}: {error}"
    return ""


def torch(_: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The build of torch, its devices, and whether the routing backend that would be taken computes right."""
    yield {"doing": "import torch"}
    import torch

    yield {"doing": "ask for a GPU"}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    build = torch.version.cuda or (f"ROCm {torch.version.hip}" if torch.version.hip else "")
    facts = {"version": torch.__version__, "build": build, "available": available, "said": " ".join(str(one.message) for one in said)}
    if available:
        facts["names"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        facts["memory"] = [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]
        capability = "sm_{}{}".format(*torch.cuda.get_device_capability(0))
        facts["capability"], facts["compiled_for"] = capability, torch.cuda.get_arch_list()
    yield {"torch": facts}
    yield {"doing": "check the routing"}
    yield {"routing": routing("cuda" if available else "cpu")}


def routing(device_type: str) -> dict[str, Any]:
    """The backend taken for tensors of a device, and the largest difference of a small layer of scaled experts from the same in plain sums."""
    import torch

    from causalroute.routing import combine, dispatch, permute, route
    from causalroute.routing.backend import choose, has_triton

    device = torch.device(device_type)
    generator = torch.Generator().manual_seed(0)
    logits, x, scale = (torch.randn(*shape, generator=generator) for shape in ((64, 8), (64, 16), (8,)))
    chosen = route(logits.to(device), 2)
    moved = permute(chosen.experts, 8)
    places = scale.to(device).repeat_interleave(moved.offsets.diff())[:, None]  # the expert's factor at each place
    got = combine(dispatch(x.to(device), moved) * places, chosen.weights, moved).double().cpu()
    best = logits.double().softmax(1).topk(2)
    wanted = (best.values * scale.double()[best.indices]).sum(1, keepdim=True) * x.double()
    return {"backend": choose("auto", device), "triton": has_triton(), "device": device_type, "difference": float((got - wanted).abs().max())}


def shards(_: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Reads every shard of the feature store."""
    yield {"doing": "read the feature store"}
    from causalroute.features import verify

    printed = io.StringIO()
    with redirect_stdout(printed):
        damaged = verify.main([])
    lines = printed.getvalue().splitlines()
    yield {"damaged": bool(damaged), "lines": [*lines[:-1][:3], lines[-1]]}


def main() -> None:
    """Does what is named by the first argument; what libraries print goes nowhere."""
    work = {"imports": imports, "torch": torch, "shards": shards}[sys.argv[1]]
    channel = sys.stdout
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            for line in work(sys.argv[2:]):
                print(json.dumps(line), file=channel, flush=True)
        except BaseException as error:  # the parent names what was being done
            print(json.dumps({"failed": f"{type(error).__name__}: {error}"}), file=channel, flush=True)


if __name__ == "__main__":
    main()
