"""Libraries and devices: starts the probes and turns what they print into findings."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalroute.doctor.finding import Finding

PATIENCE = {"imports": 120.0, "torch": 180.0, "shards": None}
"""Seconds until a probe counts as stuck; a GPU kernel may have to be compiled first, and a store may be large."""
SOURCE = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5
"""Of the routing check; the kernels promise as much."""


@dataclass(frozen=True)
class Probe:
    """A probe at work."""

    name: str
    process: subprocess.Popen[str]


def start(name: str, *words: str) -> Probe:
    """Starts a probe; it sees the code that runs here, and not the modules of the working folder."""
    paths = [str(SOURCE), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "causalroute.doctor.probe", name, *words]
    pipe = subprocess.PIPE
    return Probe(name, subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, encoding="utf-8"))


def told(probe: Probe) -> tuple[list[dict[str, Any]], str]:
    """The lines of a probe, and why it did not come to its end; empty when it did."""
    try:
        out, errors = probe.process.communicate(timeout=PATIENCE[probe.name])
    except subprocess.TimeoutExpired:
        probe.process.kill()
        out, errors = probe.process.communicate()
        return _lines(out), f"stuck: {_doing(_lines(out))} took more than {PATIENCE[probe.name]:g} s"
    lines = _lines(out)
    code = probe.process.returncode
    failed = next((line["failed"] for line in lines if "failed" in line), "")
    if failed:
        return lines, f"{_doing(lines)}: {failed}"
    if code:
        last = (errors.strip().splitlines() or [""])[-1]
        died = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}{': ' + last if last else ''}"
        return lines, f"{_doing(lines)}: the process {died}"
    return lines, ""


def _lines(out: str) -> list[dict[str, Any]]:
    found = []
    for line in out.splitlines():
        try:
            value = json.loads(line)
        except ValueError:  # something that a library printed past Python
            continue
        found += [value] if isinstance(value, dict) else []
    return found


def _doing(lines: list[dict[str, Any]]) -> str:
    return next((str(line["doing"]) for line in reversed(lines) if "doing" in line), "start Python")


def imported(probe: Probe) -> Iterator[Finding]:
    """Whether every required package can be imported."""
    lines, death = told(probe)
    good = [line for line in lines if line.get("error") == ""]
    for line in lines:
        if line.get("error"):
            yield _broken(line["module"], line["error"])
    if death:
        yield Finding("imports", "problem", death, "that package is broken or not for this machine: pip install --force-reinstall it")
    elif good and len(good) == sum("error" in line for line in lines):
        yield Finding("imports", "ok", f"{len(good)} packages can be imported")


def _broken(module: str, error: str) -> Finding:
    fix = (
        f"see the packages above: {module} is missing" if error.startswith("ModuleNotFoundError") else f"pip install --force-reinstall the package of {module}"
    )
    return Finding("imports", "problem", f"import {module}: {error}", fix)


def devices(probe: Probe) -> Iterator[Finding]:
    """torch, the GPU and the routing."""
    lines, death = told(probe)
    facts = {key: value for line in lines for key, value in line.items()}
    if "torch" in facts:
        yield from torch(facts["torch"], has_nvidia())
    if "routing" in facts:
        yield routing(facts["routing"], has_nvidia())
    if death:
        check = "routing" if "torch" in facts else "torch"
        yield Finding(check, "problem", death, "pip install --force-reinstall torch; where the routing alone fails, set backend 'reference' and report it")


def has_nvidia() -> bool:
    """Whether this machine has an NVIDIA GPU that the operating system knows of, whatever torch says."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


def torch(facts: Mapping[str, Any], nvidia: bool) -> Iterator[Finding]:
    """The build of torch, and whether it fits the devices.

    Args:
        facts: as the probe tells them.
        nvidia: whether there is an NVIDIA GPU.
    """
    build = f"CUDA {facts['build']}" if facts["build"] and "ROCm" not in facts["build"] else facts["build"] or "CPU"
    yield Finding("torch", "ok", f"{facts['version']}, {build} build")
    if facts["available"]:
        yield _device(facts)
    elif nvidia and not facts["build"]:
        fix = "install a CUDA build of torch (pytorch.org/get-started says which index serves it)"
        yield Finding("gpu", "warning", "there is an NVIDIA GPU, and this build of torch computes on the CPU alone", fix)
    elif nvidia:
        why = facts["said"].split("(Triggered")[0].strip() or "torch does not say why"
        fix = "update the NVIDIA driver to one that `nvidia-smi` lists with at least this CUDA version, or install a torch built for an older one"
        if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
            why, fix = "CUDA_VISIBLE_DEVICES hides it", "unset CUDA_VISIBLE_DEVICES"
        yield Finding("gpu", "warning", f"there is an NVIDIA GPU, and torch cannot use it: {why}", fix)
    elif facts["build"]:
        yield Finding("gpu", "ok", "none; this CUDA build computes on the CPU", "a CPU build of torch is smaller by some gigabytes (pytorch.org/get-started)")
    else:
        yield Finding("gpu", "ok", "none: everything runs on the CPU, multimodal LLMs slowly")


def _device(facts: Mapping[str, Any]) -> Finding:
    told = ", ".join(f"{name}, {memory / 2**30:.0f} GiB" for name, memory in zip(facts["names"], facts["memory"], strict=True))
    arches = facts["compiled_for"]
    if arches and not any(arch.split("_")[1].rstrip("a")[:-1] == facts["capability"].split("_")[1][:-1] for arch in arches if "_" in arch):
        fix = "install a torch built for this GPU (pytorch.org/get-started)"
        return Finding("gpu", "warning", f"{told}: of capability {facts['capability']}, and this torch is compiled for {', '.join(arches)}", fix)
    return Finding("gpu", "ok", told)


def routing(facts: Mapping[str, Any], nvidia: bool) -> Finding:
    """The backend of the routing, and whether it computes right.

    Args:
        facts: as the probe tells them.
        nvidia: whether there is an NVIDIA GPU.
    """
    told = f"backend {facts['backend']} on {facts['device']}; differs from plain sums by {facts['difference']:.1e}"
    if not facts["difference"] <= TOLERANCE:  # NaN counts as wrong
        fix = "use backend 'reference' and report this with the versions above"
        return Finding("routing", "problem", f"{told}, more than {TOLERANCE:g}", fix)
    if nvidia and facts["device"] == "cuda" and not facts["triton"]:
        return Finding("routing", "warning", f"{told}; the Triton kernels are not installed", "pip install 'causalroute[triton]'")
    return Finding("routing", "ok", told)


def sound(probe: Probe) -> Iterator[Finding]:
    """Whether every shard of the feature store is whole."""
    lines, death = told(probe)
    result = next((line for line in lines if "damaged" in line), None)
    fix = "python -m causalroute.features.verify --repair; the next run encodes again what was in them"
    if death or result is None:
        yield Finding("feature shards", "problem", death or "nothing was said", "mend the problems above first")
    elif result["damaged"]:
        yield Finding("feature shards", "problem", "; ".join(result["lines"]), fix)
    else:
        left = " 0 unfinished" not in result["lines"][-1]
        yield Finding("feature shards", "ok", result["lines"][-1], fix if left else "")
